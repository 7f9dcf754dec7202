"""The command that starts the server: how it ends."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from vireid.cli.serve import _exit_on_signal


def test_a_signal_stops_the_server_even_where_its_exception_is_ignored() -> None:
    """Python ignores exceptions in the callbacks of the garbage collector, where a signal may arrive."""
    server = Mock()
    with pytest.raises(SystemExit):
        _exit_on_signal(server, 15, None)
    server.stop.assert_called_once_with()
