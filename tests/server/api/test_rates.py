from __future__ import annotations

import pytest

from server.api import rates
from server.api.rates import Rates, network_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(rates.time, "monotonic", lambda: now[0])
    return now


def test_a_minutes_requests_may_come_at_once_and_come_back_evenly(clock: list[float]) -> None:
    found = Rates()
    for _ in range(3):
        assert found.wait_s("a", 3) == 0
        found.count("a", 3)
    assert found.wait_s("a", 3) == 20
    assert found.wait_s("b", 3) == 0
    clock[0] = 15
    assert found.wait_s("a", 3) == 5
    clock[0] = 20
    assert found.wait_s("a", 3) == 0


def test_the_names_longest_idle_are_forgotten(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_REMEMBERED", 2)
    found = Rates()
    for name in ("a", "b", "a", "c"):
        found.count(name, 1)
    assert found._buckets.keys() == {"a", "c"}


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff", "2001:db8::/64"),
        ("testclient", "testclient"),
    ],
)
def test_addresses_of_one_client_are_one(host: str, network: str) -> None:
    assert network_of(host) == network
