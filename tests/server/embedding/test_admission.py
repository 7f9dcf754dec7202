from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from server.domain.errors import Overloaded
from server.embedding.admission import Admission, permits_for
from tests.server.image_files import crop, encode, giant_png

CROPS = [crop(1)] * 100


def test_crops_need_one_permit_each_which_is_returned() -> None:
    admission = Admission(8)
    with admission.admit(CROPS[:5]):
        assert admission.in_flight == 5
        with pytest.raises(Overloaded) as caught, admission.admit(CROPS[:4]):
            pass
        assert caught.value.retry_after_s >= 1
        with admission.admit(CROPS[:3]):
            assert admission.in_flight == 8
    assert admission.in_flight == 0


def test_permits_are_returned_when_the_work_fails() -> None:
    admission = Admission(2)
    for _ in range(5):
        with pytest.raises(KeyError), admission.admit(CROPS[:2]):
            raise KeyError
    assert admission.in_flight == 0


def test_retry_after_follows_the_throughput() -> None:
    admission = Admission(100)
    with admission.admit(CROPS[:50]):
        pass  # 50 images in the last 10 s
    with admission.admit(CROPS[:100]), pytest.raises(Overloaded) as caught, admission.admit(CROPS[:11]):
        pass
    assert caught.value.retry_after_s == 3  # 11 missing at 5 a second


@pytest.mark.parametrize(
    ("image", "permits"),
    [
        (crop(1), 1),
        (b"", 1),
        (encode(np.zeros((700, 700, 3), np.uint8), "JPEG"), 1),
        (encode(np.zeros((1000, 1000, 3), np.uint8), "JPEG", progressive=True), 2),
        (giant_png(5000, 5000), 48),
        (bytes(10 << 20), 41),
    ],
)
def test_an_image_needs_permits_by_its_pixels(image: bytes, permits: int) -> None:
    assert permits_for(image) == permits


def test_large_images_use_up_the_permits_but_a_request_is_never_too_large() -> None:
    admission, large = Admission(100), giant_png(5000, 5000)
    with admission.admit([large, large]):
        assert admission.in_flight == 2
        with pytest.raises(Overloaded), admission.admit([large]):
            pass
        with admission.admit(CROPS[:4]):
            assert admission.in_flight == 6
    with admission.admit([large] * 64), pytest.raises(Overloaded), admission.admit(CROPS[:1]):
        pass
    assert admission.in_flight == 0


def test_one_key_leaves_permits_to_the_others() -> None:
    admission, images = Admission(100), CROPS[:10]
    with ExitStack() as stack:
        taken = dict.fromkeys(["flood", "second", "third"], 0)
        for key in taken:
            while True:
                try:
                    stack.enter_context(admission.admit(images, key))
                except Overloaded:
                    break
                taken[key] += len(images)
        assert taken == {"flood": 50, "second": 20, "third": 10}
        stack.enter_context(admission.admit(images, "fourth"))
    assert admission.in_flight == 0
    with admission.admit(CROPS[:100], "flood"), admission.admit(CROPS[:50], "second"):
        assert admission.in_flight == 150


def test_callers_without_a_key_share_all_permits() -> None:
    admission = Admission(10)
    with admission.admit(CROPS[:6]), admission.admit(CROPS[:4]):
        assert admission.in_flight == 10
