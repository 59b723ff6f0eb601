"""Drafts as generations: good, repaired, refused, cut off and hostile, by models that do as told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from service.chat.draft import MOST_ANSWER, MOST_TOKENS, Drafter
from service.chat.echo import Echo
from service.chat.live import Patience
from service.chat.provider import (
    Delta,
    Failure,
    Finished,
    FinishReason,
    ProviderFailed,
    Usage,
)
from service.databases.sqlite.dialect import SQLITE
from service.errors import SourceUnavailable
from service.export.assembly import Asked
from service.jobs.address import address, curl_line
from service.jobs.request import ExportRequest, understand
from tests.attacks import in_grammar
from tests.datasets import HOSTILE_NAMES
from tests.drafts import (
    BASE,
    CURSORS,
    GOOD,
    ORDERS,
    USED,
    Says,
    Step,
    alice_understands,
    drafted,
    drafting,
    live_draft,
    said,
    saying,
    whole,
)
from tests.generations import AT_ONCE, FOREVER, PATIENT, Reader, ended, started

BAD = {"dataset": "orders", "where": {"colour": "eq.red"}}
AWAY = ProviderFailed(Failure.UPSTREAM_UNAVAILABLE, "It is away.", retry=True)
SLOWLY = ProviderFailed(Failure.RATE_LIMITED, "Slowly.", retry=True, retry_after=0.0)


def draft_of(reader: Reader) -> Any:
    assert reader.end.name == "draft", reader.end
    return reader.end.data


async def mistake_in(request: Any, **more: Any) -> str:
    """What a model is told that drafts this."""
    provider = saying(said(request, **more), said(GOOD))
    reader = await drafted(provider)
    assert draft_of(reader)["repaired"]
    (repair,) = (event for event in reader.seen if event.name == "repair")
    told = provider.asked[1].messages[-1].content
    assert json.dumps(repair.data["detail"], ensure_ascii=False) in told
    return str(repair.data["detail"])


async def test_a_good_one_is_a_draft_at_once() -> None:
    provider = saying(said(GOOD))
    reader = await drafted(provider)
    assert set(reader.names[1:-2]) == {"token"}
    assert (reader.names[0], reader.names[-2:]) == ("start", ["draft", "close"])
    assert reader.text == said(GOOD)
    wanted = ExportRequest.model_validate(GOOD)
    assert draft_of(reader) == {
        "request": {"dataset": "orders", "format": "csv", **{key: GOOD[key] for key in GOOD}},
        "explanation": "Because.",
        "curl": curl_line(wanted, BASE),
        "url": address(wanted, BASE),
        "repaired": False,
    }
    assert len(provider.asked) == 1
    assert provider.open == 0


async def test_the_generation_keeps_how_it_ended() -> None:
    live = live_draft(saying(said(GOOD)))
    live.start()
    await ended(live)
    found = live.transcript.generation
    assert (found.state.value, found.finish_reason, found.error) == ("succeeded", "stop", None)
    assert found.usage == {"prompt_tokens": 100, "completion_tokens": 10}
    assert found.text == said(GOOD)


async def test_what_is_asked() -> None:
    provider = saying(said(GOOD))
    await drafted(provider, drafting("Dear orders", dataset="orders"))
    (asked,) = provider.asked
    system, user = asked.messages
    assert (system.role, user.role) == ("system", "user")
    assert json.loads(user.content) == {"wish": "Dear orders", "dataset": "orders"}
    assert '{"dataset":"orders"' in system.content
    assert '"secrets"' not in system.content
    assert (asked.model, asked.max_tokens, asked.temperature) == ("m", MOST_TOKENS, 0.0)
    assert drafting(model="n").request("m", 100).model == "n"
    assert drafting().request("m", 100).max_tokens == 100


async def test_what_is_kept_of_it_is_not_the_wish() -> None:
    kept = drafting("a secret wish", dataset="orders").shown()
    assert kept == {"draft": True, "dataset": "orders", "on_disconnect": "cancel"}


@pytest.mark.parametrize(
    "text",
    [f"```json\n{said(GOOD)}\n```", f"Here you are: {said(GOOD)} Bye.", f"\n{said(GOOD)}\n\n"],
    ids=["fenced", "prose", "spaces"],
)
async def test_what_stands_around_it_does_not_matter(text: str) -> None:
    assert draft_of(await drafted(saying(text)))["repaired"] is False


async def test_a_mistake_is_repaired_once() -> None:
    provider = saying(said(BAD), said(GOOD))
    reader = await drafted(provider)
    found = [event.name for event in reader.seen if event.name not in ("token", "progress")]
    assert found == ["start", "repair", "draft", "close"]
    assert draft_of(reader)["repaired"] is True
    numbers = [event.data["n"] for event in reader.seen if event.name == "token"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert reader.text == said(BAD) + said(GOOD)
    first, second = provider.asked
    assert [turn.role for turn in second.messages] == ["system", "user", "assistant", "user"]
    assert second.messages[:2] == first.messages
    assert second.messages[2].content == said(BAD)
    assert "colour" in second.messages[3].content
    assert provider.open == 0


async def test_the_usage_is_that_of_both() -> None:
    live = live_draft(saying(said(BAD), said(GOOD)))
    live.start()
    await ended(live)
    expected = {"prompt_tokens": 200, "completion_tokens": 20}
    assert live.transcript.generation.usage == expected


@pytest.mark.parametrize("one", [None, 5])
async def test_usage_may_be_unknown(one: int | None) -> None:
    first: list[Step] = [Delta("?"), Finished(FinishReason.STOP, Usage(one))]
    live = live_draft(Says([first, whole(said(GOOD))]))
    live.start()
    await ended(live)
    usage = live.transcript.generation.usage or {}
    assert usage["prompt_tokens"] == 100 + (one or 0)


async def test_a_second_mistake_is_the_end() -> None:
    provider = saying(said(BAD), said({"dataset": "nope"}), said(GOOD))
    reader = await drafted(provider)
    assert reader.error["code"] == "invalid_draft"
    assert reader.error["retry"] is True
    assert "There is no dataset 'nope'." in reader.error["message"]
    assert len(provider.asked) == 2


async def test_nothing_twice_is_the_end_and_no_reason_to_ask_again() -> None:
    provider = Says([[Finished(FinishReason.STOP, USED)]] * 9)
    reader = await drafted(provider, patience=replace(PATIENT, retries=3))
    assert reader.error["code"] == "invalid_draft"
    assert [event.name for event in reader.seen] == ["start", "repair", "error", "close"]
    assert provider.asked[1].messages[2].content == "(nothing)"
    assert len(provider.asked) == 2


async def test_a_model_may_decline() -> None:
    provider = saying(said(None, "There is no weather here."), said(GOOD))
    reader = await drafted(provider)
    assert (reader.error["code"], reader.error["retry"]) == ("invalid_draft", False)
    assert reader.error["message"].endswith(": There is no weather here.")
    assert len(provider.asked) == 1


@pytest.mark.parametrize(
    ("request_", "mistake"),
    [
        ({}, "request: dataset: Field required"),
        ({"dataset": "orders", "sql": "select 1"}, "request: sql: Extra inputs"),
        ({"dataset": "orders", "limit": "5"}, "request: limit: Input should be a valid integer"),
        ({"dataset": "orders", "limit": 1.5, "order": 5}, "order: Input should be a valid tuple; "),
        ({"dataset": "orders", "format": "xml"}, "request: format: Input should be 'csv'"),
        ({"dataset": "orders", "where": {"id": 5}}, "request: where.id.str: "),
        ({"dataset": "orders", "where": {"id": "5"}}, "id: '5' is not an operator"),
        ({"dataset": "orders", "where": {"id": "eq.five"}}, "id: 'five' is not a value of type"),
        ({"dataset": "orders", "where": {"id": []}}, "where: id has no conditions"),
        ({"dataset": "orders", "where": {"limit": "eq.5"}}, 'say {"and": "(limit.eq.…)"}'),
        ({"dataset": "orders", "where": {"or": "(id.eq.1"}}, "or: expected ',' or ')'"),
        ({"dataset": "orders", "order": ["id up"]}, "order: orders has no column 'id up'"),
        ({"dataset": "orders", "select": ["count(*)"]}, "select: "),
        ({"dataset": "orders", "format": "json", "profile": "excel"}, "profile: excel is for csv"),
        ({"dataset": "orders", "profile": "excel", "limit": 2_000_000}, "limit: the profile excel"),
        ({"dataset": "orders", "fresh": True}, "after and fresh cannot be drafted"),
        ({"dataset": "orders", "after": "x"}, "after and fresh cannot be drafted"),
        ({"dataset": "orders", "filename": ""}, "request: filename: "),
        ({"dataset": "orders; drop table canary"}, "There is no dataset 'orders; drop table"),
        ({"dataset": "public.orders"}, "There is no dataset 'public.orders'"),
        ({"dataset": "secrets"}, "There is no dataset 'secrets'."),
        ({"dataset": "totals", "select": ["price"]}, "totals has no column 'price' (it has id)"),
        ({"dataset": "totals", "where": {"price": "gt.1"}}, "totals has no column 'price'"),
        ({"dataset": "totals", "where": {"or": "(price.gt.1)"}}, "totals has no column 'price'"),
        ({"dataset": "totals", "order": ["price"]}, "totals has no column 'price'"),
        ({"dataset": "totals", "select": ["x:price"]}, "totals has no column 'price'"),
        ({"dataset": "orders", "where": {"x\0": "eq.1"}}, "NUL characters cannot be asked for"),
        ({"dataset": "orders", "where": {"id": "in.(" + "1," * 20_000 + "1)"}}, "in takes at most"),
        ({"dataset": "orders", "where": {"name": "eq." + "世" * 8_000}}, "it is too long"),
    ],
    ids=lambda value: repr(value)[:90],
)
async def test_a_mistake_is_told_in_words(request_: dict[str, Any], mistake: str) -> None:
    told = await mistake_in(request_)
    assert mistake in told
    assert "\0" not in told
    assert len(told) <= 2_000


async def test_what_the_dataset_s_database_has_nothing_for_is_a_mistake() -> None:
    async def understands(wanted: ExportRequest) -> Asked:
        return understand(wanted, replace(ORDERS, dialect=SQLITE), CURSORS, 65_536)

    request = {"dataset": "orders", "where": {"name": "match.^a"}}
    provider = saying(said(request), said(request))
    reader = await drafted(provider, replace(drafting(), understand=understands))
    assert reader.error["code"] == "invalid_draft"
    assert "name: " in reader.error["message"]


async def test_members_that_say_nothing_are_no_mistake() -> None:
    full = {"dataset": "orders", "fresh": False, "after": None, "where": {}, "limit": None}
    reader = await drafted(saying(said(full)))
    assert draft_of(reader)["request"] == {"dataset": "orders", "format": "csv"}


async def test_every_mistake_in_the_shape_is_told_but_not_without_end() -> None:
    request = {"dataset": "orders", **{f"x{number}": 1 for number in range(50)}}
    told = await mistake_in(request)
    assert told.count("Extra inputs") == 10


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_names_that_bite_are_names(name: str) -> None:
    """They select columns or are refused, and are quoted wherever they are told."""
    request = {"dataset": "orders", "select": [in_grammar(name)], "where": {name: "eq.x"}}
    if name == "select":
        del request["where"]
    reader = await drafted(saying(said(request)))
    found = draft_of(reader)
    asked = await alice_understands(ExportRequest.model_validate(found["request"]))
    assert asked.query.labels == (name,)


async def test_what_was_said_in_a_comment_does_not_matter() -> None:
    """A model that obeys a comment is told what everybody is told who asks for it."""
    provider = saying(said({"dataset": "secrets"}), said({"dataset": "secrets"}, "Obeyed."))
    reader = await drafted(provider)
    assert reader.error["code"] == "invalid_draft"
    assert "There is no dataset 'secrets'." in reader.error["message"]


@pytest.mark.parametrize("cut", [1, 20, len(said(GOOD)) - 1])
async def test_an_answer_that_was_cut_off_is_told_so(cut: int) -> None:
    answers = [whole(said(GOOD)[:cut], FinishReason.LENGTH), whole(said(GOOD))]
    reader = await drafted(Says(answers))
    (repair,) = (event for event in reader.seen if event.name == "repair")
    assert repair.data["detail"].startswith("The answer was cut off")
    assert draft_of(reader)["repaired"]


async def test_a_whole_answer_may_be_at_its_limit() -> None:
    reader = await drafted(Says([whole(said(GOOD), FinishReason.LENGTH)]))
    assert draft_of(reader)["repaired"] is False


async def test_what_a_filter_stopped_is_not_repaired() -> None:
    provider = Says([whole("I cannot", FinishReason.CONTENT_FILTER), whole(said(GOOD))])
    reader = await drafted(provider)
    assert (reader.error["code"], reader.error["retry"]) == ("content_filtered", False)
    assert len(provider.asked) == 1


@pytest.mark.parametrize(
    ("piece", "pieces"),
    [("x" * 10_000_000, 1), ("x" * 1_000, 10_000), ("{" * 1_000, 10_000), ('{"a":', 10_000_000)],
    ids=["one piece", "many", "braces", "many small"],
)
async def test_a_very_long_answer_is_let_go_of(piece: str, pieces: int) -> None:
    provider = Says([[Delta(piece)] * min(pieces, 20_000)] * 2)
    reader = await drafted(provider)
    assert reader.error["code"] == "invalid_draft"
    assert len(reader.text) <= 2 * MOST_ANSWER
    assert provider.open == 0
    assert len(provider.asked) == 2
    assert len(provider.asked[1].messages[2].content) <= MOST_ANSWER


async def test_an_answer_in_very_many_pieces_is_let_go_of_by_the_draft_itself() -> None:
    """Its result would be left out, if it were the generation that ended it."""
    provider = Says([[Delta("x")] * 10_000] * 2)
    reader = await drafted(provider, most_tokens=100)
    assert reader.error["code"] == "invalid_draft"
    assert len(reader.text) < 8 * 100
    assert provider.given == 2 * 8 * 100 // 2


async def test_one_that_never_ends_is_cancelled_at_once() -> None:
    provider = Says([[Delta("{"), FOREVER]])
    live = live_draft(provider)
    reader = started(live)
    await reader.reach(2)
    live.detach(reader, left=True)
    assert (await ended(live, AT_ONCE)).end.name == "cancelled"
    assert provider.open == 0


@pytest.mark.parametrize("at", ["first", "stall"])
async def test_the_second_answer_has_the_patience_of_the_first(at: str) -> None:
    impatient = Patience(first_token=0.3, stall=0.3, max_duration=60.0, retries=2)
    second: list[Any] = [FOREVER] if at == "first" else [Delta("{"), FOREVER]
    provider = Says([whole(said(BAD)), second])
    reader = await drafted(provider, patience=impatient)
    words = "nothing within 0.3 s" if at == "first" else "nothing for 0.3 s"
    assert reader.error["code"] == "timeout"
    assert words in reader.error["message"]
    assert len(provider.asked) == 2
    assert provider.open == 0


async def test_a_slow_start_of_the_second_answer_is_no_stall() -> None:
    patience = Patience(first_token=60.0, stall=0.2, max_duration=60.0, retries=0)
    reader = await drafted(Says([whole(said(BAD)), [0.6, *whole(said(GOOD))]]), patience=patience)
    assert draft_of(reader)["repaired"]


async def test_a_provider_that_fails_is_asked_again_before_its_first_token_alone() -> None:
    provider = Says([[SLOWLY], whole(said(BAD)), [AWAY], whole(said(GOOD))])
    reader = await drafted(provider, patience=replace(PATIENT, retries=3))
    assert reader.error == {
        "code": "upstream_unavailable",
        "message": "It is away.",
        "retry": True,
    }
    assert len(provider.asked) == 3


async def test_a_source_that_is_away_is_no_mistake_of_the_model() -> None:
    async def away(wanted: ExportRequest) -> Asked:
        raise SourceUnavailable(f"The source of {wanted.dataset} is away.")

    provider = saying(said(GOOD), said(GOOD))
    reader = await drafted(provider, replace(drafting(), understand=away))
    assert reader.error["code"] == "unknown"
    assert reader.error["retry"] is True
    assert reader.error["message"] == "The source of orders is away."
    assert len(provider.asked) == 1


async def test_the_echo_has_a_stand_in_repeated() -> None:
    wish = drafting("Dear orders")
    drafter = wish.answers(Echo())
    assert isinstance(drafter, Drafter)
    pieces = [piece async for piece in drafter.stream(wish.request("echo", 8_192))]
    *tokens, last = pieces
    assert isinstance(last, Finished)
    assert last.result is not None
    assert last.result.name == "draft"
    assert last.result.data["request"] == {"dataset": "orders", "format": "csv", "limit": 100}
    assert last.result.data["explanation"].startswith("This is a stand-in")
    assert len(tokens) > 20
    assert "stand-in" in "".join(piece.text for piece in tokens if isinstance(piece, Delta))
