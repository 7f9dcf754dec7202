from __future__ import annotations

import pytest

from server.embedding.admission import Admission
from server.errors import Overloaded


def test_images_are_counted_and_the_permits_come_back() -> None:
    admission = Admission(8)
    with admission.admit(5):
        assert admission.in_flight == 5
        with pytest.raises(Overloaded) as caught, admission.admit(4):
            pass
        assert caught.value.retry_after_s >= 1
        with admission.admit(3):
            assert admission.in_flight == 8
    assert admission.in_flight == 0


def test_permits_come_back_when_the_work_fails() -> None:
    admission = Admission(2)
    for _ in range(5):
        with pytest.raises(KeyError), admission.admit(2):
            raise KeyError
    assert admission.in_flight == 0


def test_the_advice_to_retry_follows_the_pace() -> None:
    admission = Admission(100)
    with admission.admit(50):
        pass  # 50 images in the last 10 s
    with admission.admit(100), pytest.raises(Overloaded) as caught, admission.admit(11):
        pass
    assert caught.value.retry_after_s == 3  # 11 missing at 5 a second
