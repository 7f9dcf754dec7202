from __future__ import annotations

from server.api.fair_queue import FairQueue


def test_keys_take_turns_however_many_requests_each_has() -> None:
    queue = FairQueue(1)
    assert queue.take("flood").done()
    places = [("flood", queue.take("flood")) for _ in range(3)] + [("a", queue.take("a")), ("b", queue.take("b"))]
    served = []
    for _ in range(5):
        queue.give_back()
        (key, place) = next((key, place) for key, place in places if place.done())
        places.remove((key, place))
        served.append(key)
    assert served == ["flood", "a", "b", "flood", "flood"]


def test_who_leaves_gives_its_place_to_the_next() -> None:
    queue = FairQueue(1)
    queue.take("a")
    gone, waiting = queue.take("a"), queue.take("a")
    other = queue.take("b")
    assert gone.cancel()
    assert other.cancel()
    queue.give_back()
    assert waiting.done()
    queue.give_back()
    assert queue.take("c").done()


def test_a_slot_is_free_again_after_the_last_one_waiting_has_left() -> None:
    queue = FairQueue(2)
    taken = [queue.take(None) for _ in range(2)]
    assert all(place.done() for place in taken)
    assert queue.take(None).cancel()
    queue.give_back()
    assert queue.take(None).done()
    assert not queue.take(None).done()
