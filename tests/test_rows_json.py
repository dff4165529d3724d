"""JSON Lines and JSON arrays: what is a row, what is refused and why, and that every row keeps its text."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import InputError
from batchrun.models import Invalid, Kind, Row
from batchrun.rows import Mixed, error_text, note_text, open_input
from batchrun.rows.check import RefusedRowError, Remarks, parse
from batchrun.rows.jsons import read_array, read_jsonl
from batchrun.rows.source import encoded_line_groups

NO_ID = "not text or a whole number; --id-column none identifies rows by their content"
OBJECT = ': a row is an object, such as {"text": "…"}'


def read(path: Path, data: str | bytes, *, prompt: bool = True, id_column: str | None = None) -> list[Row | Invalid]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(open_input(str(path), has_prompt=prompt, id_column=id_column))


def texts(rows: list[Row | Invalid]) -> list[str]:
    assert all(isinstance(row, Row) for row in rows), rows
    return [row.text for row in rows]


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a":1,b}', "invalid JSON at column 8: expecting property name enclosed in double quotes"),
        ('{"a":1} x', "invalid JSON at column 9: extra data"),
        ('{"a"', "invalid JSON at column 5: expecting ':' delimiter"),
        ('{"a":"\t"}', "invalid JSON at column 7: invalid control character at"),
        ("[1]", "not an object but an array" + OBJECT),
        ('"a"', "not an object but a string" + OBJECT),
        ("17", "not an object but a number" + OBJECT),
        ("true", "not an object but true or false" + OBJECT),
        ("null", "not an object but null" + OBJECT),
        ('{"a":NaN}', "NaN is not JSON: write null in its place"),
        ('{"a":-Infinity}', "-Infinity is not JSON: write null in its place"),
        ('{"a":"\\ud800"}', "a lone surrogate (\\ud800) cannot be stored or sent"),
        ('{"\\uDFFF":1}', "a lone surrogate (\\udfff) cannot be stored or sent"),
        ('{"a":' + "1" * 5000 + "}", "an integer has more than 4,300 digits"),
        ('{"a":' + "[" * 200_000 + "}", "nested deeper than 200 levels"),
        ('{"a":' + "[" * 201 + "]" * 201 + "}", "nested deeper than 200 levels"),
    ],
)
def test_a_bad_line_is_named_with_its_reason_and_no_row_shifts(jsonl: Path, line: str, reason: str) -> None:
    before, bad, after = read(jsonl, f'{{"n":1}}\n{line}\n{{"n":3}}\n')
    assert isinstance(bad, Invalid)
    assert (bad.line, bad.reason) == (2, reason)
    assert [row.line for row in (before, after) if isinstance(row, Row)] == [1, 3]
    assert bad.text == line


def test_invalid_utf8_is_named_with_its_byte(jsonl: Path) -> None:
    _, bad, last = read(jsonl, b'{"n":1}\n{"a":"\xe9"}\n{"n":3}')
    assert bad == Invalid(2, '{"a":"é"}', "not UTF-8 at byte 7 of the line (0xe9)")
    assert last.line == 3


def test_a_line_over_the_limit_is_refused_and_the_next_one_is_read(jsonl: Path) -> None:
    long = '{"a":"' + "x" * (33 * 1024**2) + '"}'
    bad, row = read(jsonl, f'{long}\n{{"n":2}}\n')
    assert isinstance(bad, Invalid)
    assert bad.reason == "longer than 32 MiB"
    assert bad.text == long[:480]
    assert isinstance(row, Row)
    assert (row.line, row.text) == (2, '{"n":2}')


def test_bom_crlf_blank_lines_and_a_missing_last_line_feed(jsonl: Path) -> None:
    rows = read(jsonl, '\ufeff{"n":1}\r\n\r\n  \n{"n":2}\r\n{"n":3}')
    assert texts(rows) == ['{"n":1}', '{"n":2}', '{"n":3}']
    assert [row.line for row in rows] == [1, 4, 5]


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\u0085", "\ufeff"])
def test_only_a_line_feed_ends_a_line(jsonl: Path, char: str) -> None:
    assert texts(read(jsonl, f'{{"a":"x{char}y"}}\n')) == [f'{{"a":"x{char}y"}}']


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1.10,"b":1E400,"c":123456789012345678901234567890,"d":-0.0}',
        '{ "z" : null ,\t"a.b" : [ true , { } ] }',
        '{"a":"\\u0000 \\ud83d\\ude00 \\/"}',
        '{"a":1,"a":2}',
        '{"a":"\\\\ud800"}',
        ' {"a":1} ',
        "{}",
    ],
)
def test_numbers_order_and_spelling_survive(jsonl: Path, text: str) -> None:
    assert texts(read(jsonl, text)) == [text]


def test_utf16_is_refused_by_name(jsonl: Path) -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        with pytest.raises(InputError, match="UTF-16"):
            read(jsonl, '{"a":1}\n'.encode(encoding))


def test_objects_over_several_lines_are_rows_named_by_their_first_line(jsonl: Path) -> None:
    rows = read(jsonl, '{\n "a": 1.0\n}\n\n{ "b":\n2 }{"c":[{"d":"}"}]}\n')
    assert [(row.line, row.text) for row in rows if isinstance(row, Row)] == [
        (1, '{"a": 1.0}'),
        (5, '{ "b":2 }'),
        (6, '{"c":[{"d":"}"}]}'),
    ]


@pytest.mark.parametrize("data", ['{\n"a":1\n}\n{\n"b":tru\n}', '{\n"a":1\n}\n{\n'])
def test_objects_over_several_lines_that_do_not_end_are_refused_with_the_line(jsonl: Path, data: str) -> None:
    with pytest.raises(InputError, match="the object that begins in line 4"):
        list(read(jsonl, data))


@pytest.mark.parametrize(
    ("first", "column", "key"),
    [
        ('{"custom_id":"a","id":"b"}', "custom_id", "a"),
        ('{"id":7}', "id", "7"),
        ('{"id":"../\\u0000\\n\u202e"}', "id", "../\0\n\u202e"),
        ('{"a":1}', None, None),
    ],
)
def test_the_first_row_decides_the_id_column(jsonl: Path, first: str, column: str | None, key: str | None) -> None:
    jsonl.write_text(first)
    opened = open_input(str(jsonl), has_prompt=True)
    assert opened.id_column == column
    assert [row.key for row in opened if isinstance(row, Row)] == [key]


def test_an_id_column_can_be_named_or_switched_off(jsonl: Path) -> None:
    named = read(jsonl, '{"id":1,"n":"x"}', id_column="n")[0]
    off = read(jsonl, '{"id":1,"n":"x"}', id_column="none")[0]
    assert isinstance(named, Row)
    assert isinstance(off, Row)
    assert (named.key, off.key) == ("x", None)
    with pytest.raises(InputError, match='no column "m"'):
        read(jsonl, '{"id":1,"n":"x"}', id_column="m")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"n":1}', 'the id column "id" is missing'),
        ('{"id":null}', 'the id column "id" is empty'),
        ('{"id":""}', 'the id column "id" is empty'),
        ('{"id":true}', f'the id in column "id" is True, {NO_ID}'),
        ('{"id":1.5}', f'the id in column "id" is 1.5, {NO_ID}'),
        ('{"id":["a"]}', f"the id in column \"id\" is ['a'], {NO_ID}"),
    ],
)
def test_a_row_without_a_usable_id_is_invalid(jsonl: Path, line: str, reason: str) -> None:
    assert read(jsonl, f'{{"id":1}}\n{line}')[1] == Invalid(2, line, reason)


BATCH = '{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"m"}}'


@pytest.mark.parametrize(
    ("line", "prompt", "kind"),
    [
        (BATCH, False, Kind.BATCH),
        (BATCH, True, Kind.BATCH),
        ('{"custom_id":"a","body":{}}', False, Kind.BATCH),
        ('{"custom_id":"a","body":"Dear Sir"}', True, Kind.ROWS),
        ('{"messages":[]}', False, Kind.BODIES),
        ('{"input":"x"}', False, Kind.BODIES),
        ('{"messages":[]}', True, Kind.ROWS),
        ('{"text":"x"}', False, Kind.ROWS),
    ],
)
def test_the_first_row_decides_the_kind(jsonl: Path, line: str, prompt: bool, kind: Kind) -> None:
    jsonl.write_text(line)
    assert open_input(str(jsonl), has_prompt=prompt).kind is kind


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"custom_id":"b","method":"GET","body":{}}', "the method is GET"),
        ('{"custom_id":"b","method":null,"body":{}}', "the method is None"),
        ('{"custom_id":"b","url":"/v1/files","body":{}}', "the url is /v1/files"),
        ('{"custom_id":"b","url":["/v1/responses"],"body":{}}', "the url is ["),
        ('{"custom_id":"b","url":"/v1/responses","body":[]}', 'the "body" of the request is not an object'),
    ],
)
def test_a_batch_request_that_cannot_be_sent_is_invalid(jsonl: Path, line: str, reason: str) -> None:
    bad = read(jsonl, f"{BATCH}\n{line}", prompt=False)[1]
    assert isinstance(bad, Invalid)
    assert bad.reason.startswith(reason)
    assert not isinstance(bad, Mixed)


def test_a_row_of_another_kind_is_told_apart_from_a_bad_line(jsonl: Path) -> None:
    mixed = read(jsonl, f'\n{BATCH}\n{{"text":"x"}}', prompt=False)[1]
    assert isinstance(mixed, Mixed)
    assert (mixed.line, mixed.reason) == (3, "a row for a prompt, but line 2 is an OpenAI Batch request")


def test_batch_results_are_no_input_without_a_prompt(jsonl: Path) -> None:
    result = '{"id":"x","custom_id":"a","response":null,"error":{}}'
    with pytest.raises(InputError, match="Batch result") as refused:
        read(jsonl, result, prompt=False)
    assert refused.value.hint
    assert isinstance(read(jsonl, result, prompt=True)[0], Row)
    assert isinstance(read(jsonl, f'{{"custom_id":"b"}}\n{result}', prompt=False)[1], Invalid)


def test_columns_are_those_of_the_first_hundred_rows_in_order(jsonl: Path) -> None:
    lines = ['{"b":1,"a":2}', "bad", '{"c":1,"a":2}', *['{"a":1}'] * 200, '{"z":1}']
    jsonl.write_text("\n".join(lines))
    assert open_input(str(jsonl), has_prompt=True).columns == ("b", "a", "c")


def test_an_input_can_be_read_again_and_its_head_alone(jsonl: Path) -> None:
    jsonl.write_text('{"a":1}\n{"a":2}\n{"a":3}\n')
    opened = open_input(str(jsonl), has_prompt=True)
    assert texts(opened.head(2)) == ['{"a":1}', '{"a":2}']
    assert list(opened) == list(opened)
    assert (opened.name, opened.stem, opened.size, opened.format) == (str(jsonl), "rows", 24, "jsonl")


def test_the_errors_file_is_the_same_input_again(jsonl: Path) -> None:
    original = ['{"id":"a","n":1.10}', '{ "id": "b" , "x":{} }', '{"id":"c"}']
    note = note_text(Invalid(9, "bad\\", "not JSON"), {"cause": "invalid"})
    lines = [error_text(text, {"cause": "x", "line": 1}) for text in original]
    assert texts(read(jsonl, "\n".join([note, *lines]))) == original


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('{"_batchrun":{}}', "{}"),
        ('{ "_batchrun" : {"cause":"x"} }', "{  }"),
        ('{"_batchrun":{"a":"},{"} , "b":2}', '{"b":2}'),
        ('{"a":1 , "_batchrun":1,"b":2}', '{"a":1 ,"b":2}'),
        ('{"_batchrun":1,"a":1,"_batchrun":2}', '{"a":1}'),
        ('{"a":{"_batchrun":1}}', '{"a":{"_batchrun":1}}'),
    ],
)
def test_the_reserved_key_is_taken_off_wherever_it_stands(jsonl: Path, line: str, text: str) -> None:
    row = read(jsonl, line)[0]
    assert isinstance(row, Row)
    assert row.text == text
    assert row.fields == json.loads(text)


def test_an_errors_file_of_notes_alone_has_no_rows(jsonl: Path) -> None:
    with pytest.raises(InputError, match="has no rows"):
        read(jsonl, note_text(Invalid(1, "x", "not JSON"), {}))


@pytest.mark.parametrize("lines", ["{bad\n{worse\n", '{"custom_id": "a", "body": {"messages": "open\n{"b\n'])
def test_lines_of_which_none_is_valid_are_not_taken_for_rows_of_a_prompt(jsonl: Path, lines: str) -> None:
    jsonl.write_text(lines)
    with pytest.raises(InputError, match=r"has no valid row: line 1: invalid JSON at column \d+"):
        open_input(str(jsonl), has_prompt=False)
    assert len(list(open_input(str(jsonl), has_prompt=True))) == 2


def test_elements_of_an_array_keep_their_text(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.json", '\ufeff [ {"a": 1.10, "b":[{"c":"],{\\""}]} ,{}\n,\n{"d":\n  [1,\r\n 2]}]\n')
    assert texts(rows) == ['{"a": 1.10, "b":[{"c":"],{\\""}]}', "{}", '{"d":[1,2]}']
    assert [row.line for row in rows] == [1, 2, 3]


def test_a_bad_element_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.json", b'[{"n":1},7,,{"a":tru},{"b":"\xe9"},{"n":6}]')
    assert [(row.line, row.reason) for row in rows if isinstance(row, Invalid)] == [
        (2, "not an object but a number" + OBJECT),
        (3, "an element is missing between two commas"),
        (4, "invalid JSON at column 6: expecting value"),
        (5, "not UTF-8"),
    ]
    assert [row.line for row in rows if isinstance(row, Row)] == [1, 6]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('[{"a":1},{"b":', "not closed after element 1"),
        ('[{"a":1}', "not closed after element 0"),
        ('[{"a":1}]\n[{"a":2}]', "something follows the JSON array after element 1"),
        ('[{"a":1}}', "brackets do not match in element 1"),
        ("[]", "has no rows"),
        ("[ ]\n", "has no rows"),
    ],
)
def test_an_array_that_cannot_be_trusted_is_refused(tmp_path: Path, data: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read(tmp_path / "a.json", data)


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.builds(
    json.dumps,
    st.dictionaries(st.text(), JSON_VALUES, max_size=4),
    ensure_ascii=st.booleans(),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :\t")]),
)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(st.lists(OBJECTS, min_size=1, max_size=6), st.integers(1, 40), st.sampled_from(["\n", "\r\n"]))
def test_any_object_survives_lines_to_the_byte(objects: list[str], size: int, end: str) -> None:
    found = list(read_jsonl(cut(end.join(objects).encode(), size), Remarks()))
    assert [(record[0], record[1]) for record in found] == list(enumerate(objects, 1))


@given(st.lists(OBJECTS, min_size=1, max_size=6), st.integers(1, 40), st.sampled_from([",", ", ", "\n,\n"]))
def test_any_object_survives_an_array_to_the_byte(objects: list[str], size: int, comma: str) -> None:
    found = list(read_array(cut(f"[{comma.join(objects)}]".encode(), size), "x", None, Remarks()))
    assert [(record[0], record[1]) for record in found] == list(enumerate(objects, 1))


@given(st.binary(max_size=80), st.integers(1, 20))
def test_an_array_of_garbage_is_refused_or_named_never_a_crash(data: bytes, size: int) -> None:
    try:
        found = list(read_array(cut(b"[" + data, size), "x", None, Remarks()))
    except InputError:
        return
    assert [record[0] for record in found] == list(range(1, len(found) + 1))


DIGITS = st.text("0123456789", min_size=1, max_size=25)
NUMBERS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "-"]),
        DIGITS | st.sampled_from(["0", "9007199254740993", "9223372036854775808", "18446744073709551616"]),
        st.just("") | DIGITS.map(".{}".format),
        st.just("") | st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "-", "+"]), DIGITS),
    ),
)
TEXTS = st.text(st.sampled_from('aé日😀\\"/bnu0d8e') | st.characters(codec="utf-8"), max_size=8)
TOKENS = (
    NUMBERS | TEXTS.map(json.dumps) | TEXTS.map('"{}"'.format) | st.sampled_from(["null", "true", "NaN", "-Infinity"])
)
SPELLED = st.recursive(
    TOKENS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda found: f"[{', '.join(found)}]")
        | st.lists(st.tuples(st.sampled_from(['"a"', '"\\u0061"', '"b"', '""']), inner), max_size=3).map(
            lambda found: f"{{{','.join(f'{name}:{value}' for name, value in found)}}}"
        )
    ),
    max_leaves=6,
)


def no_json(name: str) -> Any:
    raise ValueError(name)


@given(SPELLED)
def test_a_row_means_what_the_standard_library_reads(value: str) -> None:
    """Every integer to its last digit, every float, escape and member that appears twice; what is refused is as well."""
    text = f'{{"value":{value},"after":[{value}]}}'
    try:
        expected = json.loads(text, parse_constant=no_json)
        json.dumps(expected, ensure_ascii=False).encode()
    except ValueError:
        with pytest.raises(RefusedRowError):
            parse(text)
    else:
        assert repr(parse(text)) == repr(expected)


def test_integers_beyond_64_bits_stay_exact() -> None:
    assert parse('{"a":18446744073709551617,"b":-9223372036854775809}') == {"a": 2**64 + 1, "b": -(2**63) - 1}


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("doubled", ["", '"b":1,"b":2,'])
def test_as_many_levels_as_are_allowed_are_taken_whoever_parses_them(
    jsonl: Path, opened: str, closed: str, doubled: str
) -> None:
    def row(levels: int) -> str:
        return f'{{{doubled}"a":{opened * levels}{"1" * (closed == "}")}{closed * levels}}}'

    taken, refused = read(jsonl, f"{row(200)}\n{row(201)}\n")
    assert isinstance(taken, Row)
    assert (refused.line, refused.reason) == (2, "nested deeper than 200 levels")


def test_long_lines_and_short_ones_are_the_same_lines(jsonl: Path) -> None:
    long = "x" * 5000
    lines = [f'{{"n":1,"x":"{long}"}}', '{"n":2}', "", f'{{"n":3,"x":"{long}"}}', f'{{"n":4,"x":"{long}"}}', '{"n":5}']
    for end in ("\n", "\r\n"):
        for text in (end.join(lines), end.join([*lines, ""]), end.join(lines[:1]), end.join(lines[:4])):
            found = read(jsonl, text)
            assert [row.text for row in found] == [line for line in text.split(end) if line]
            assert [row.line for row in found] == [n for n, line in enumerate(text.split(end), 1) if line]


LINES = st.lists(st.sampled_from(["", "x", "ä" * 3000, "y" * 5000, "z" * 9000, "€", "\x85\u2028"]), max_size=8)


@given(LINES, st.sampled_from(["\n", "\r\n"]), st.integers(1, 30_000))
def test_lines_and_their_bytes_are_the_same_however_the_file_is_read(lines: list[str], end: str, size: int) -> None:
    data = end.join([*lines, "last"]).encode()
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    found = [
        (line, known) for group, known in encoded_line_groups(chunks) for line, known in zip(group, known, strict=False)
    ]
    assert [line for line, _ in found] == [*lines, "last"]
    assert all(known is None or known.decode() == line for line, known in found)


def test_a_long_line_that_is_not_utf8_is_refused_alone() -> None:
    data = b'{"a": "' + b"x" * 9000 + b'"}\n{"a": "\xff' + b"x" * 9000 + b'"}\n{"a": 1}\n'
    (lines, _), *rest = encoded_line_groups([data])
    assert [isinstance(line, Invalid) for line in lines] == [False, True, False]
    assert not rest
