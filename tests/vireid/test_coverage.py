"""Coverage of the API by the client, and of the client by the command."""

from __future__ import annotations

from tests.vireid import coverage_table

PAGE = coverage_table.ROOT / "docs" / "coverage.md"
NOT_SENT_BY_THE_CLIENT = {"GET /healthz"}
NOT_CALLED_BY_THE_COMMAND = {
    "POST /v1/galleries/{gallery}/searches",  # a command searches for one person
    "POST /v1/galleries/{gallery}/vectors",  # vireid import sends files of vectors
}


def test_table_is_up_to_date() -> None:
    """To update it, run ``python -m tests.vireid.coverage_table > docs/coverage.md``."""
    assert PAGE.read_text("utf-8") == coverage_table.page()


def test_client_sends_every_operation_and_no_other() -> None:
    assert set(coverage_table.calls().values()) == set(coverage_table.operations()) - NOT_SENT_BY_THE_CLIENT


def test_command_calls_every_method_that_sends_an_operation_of_its_own() -> None:
    used = coverage_table.commands()
    sent_by_the_command = {operation for name, operation in coverage_table.calls().items() if name in used}
    expected = set(coverage_table.operations()) - NOT_SENT_BY_THE_CLIENT - NOT_CALLED_BY_THE_COMMAND
    assert expected - sent_by_the_command == set()
