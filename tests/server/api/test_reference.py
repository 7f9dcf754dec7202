"""The reference pages of the server: problem types and the API, offline and under the content policy."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from server.api import problem_catalogue
from server.api.errors import FRAMEWORK_PROBLEMS, PROBLEMS
from tests.server.calls import check_problem
from tests.server.conftest import Start


def test_catalogue_has_every_problem_type_and_no_other() -> None:
    sent = {problem.slug for problem in PROBLEMS.values()} | {slug for slug, _, _ in FRAMEWORK_PROBLEMS.values()}
    assert problem_catalogue._CAUSES.keys() == sent


@pytest.mark.parametrize("slug", problem_catalogue.CATALOGUE)
def test_type_of_a_problem_is_a_page_that_says_what_to_do(client: TestClient, slug: str) -> None:
    answer = client.get(f"/problems/{slug}")
    assert answer.headers["content-type"].startswith("text/html")
    assert "What to do:" in answer.text


def test_type_of_an_answer_leads_to_its_page(client: TestClient) -> None:
    problem = check_problem(client.get("/v1/galleries/nowhere"), 404, "gallery-not-found")
    assert client.get(problem["type"]).status_code == 200
    check_problem(client.get("/problems/unheard-of"), 404, "not-found")


def test_list_links_to_every_problem_type(client: TestClient) -> None:
    assert re.findall(r'href="problems/([a-z-]+)"', client.get("/problems").text) == list(problem_catalogue.CATALOGUE)


def test_api_page_has_every_operation_and_no_script(client: TestClient) -> None:
    text = client.get("/docs").text
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method in operations:
            assert f"<code>{method.upper()} {path}</code>" in text
    assert "<script" not in text
    assert " style=" not in text
    assert set(re.findall(r'(?:href|src)="(?!#)([^"]+)"', text)) == {"reference.css", "openapi.json", "problems"}
    assert client.get("/reference.css").status_code == 200


def test_reference_pages_need_no_key(start: Start) -> None:
    with start(auth="required") as client:
        for path in ("/docs", "/problems", "/problems/unauthorized", "/openapi.json"):
            assert client.get(path).status_code == 200
