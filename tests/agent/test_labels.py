"""Labels are typed by people: what is wrong is named, and nothing else ever happens."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from escra_agent.labels import LabelError, Labels, parse_labels

VALID = {
    "escra.app": "shop",
    "escra.mode": "observe",
    "escra.weight": "200",
    "escra.cpu.min": "250m",
    "escra.cpu.max": "1.5",
    "escra.memory.min": "64MiB",
    "escra.memory.max": "2GiB",
}


def test_all_labels() -> None:
    assert parse_labels({**VALID, "com.docker.compose.project": "x"}) == Labels(
        app="shop",
        mode="observe",
        weight=200,
        cpu_min_milli=250,
        cpu_max_milli=1500,
        memory_min_bytes=64 << 20,
        memory_max_bytes=2 << 30,
    )


def test_the_application_is_enough() -> None:
    assert parse_labels({"escra.app": "shop"}) == Labels("shop", "auto", 100, None, None, None, None)


@pytest.mark.parametrize(
    ("label", "value", "said"),
    [
        ("escra.app", "", "1 to 255"),
        ("escra.app", " shop", "printable"),
        ("escra.app", "a\nb", "printable"),
        ("escra.mode", "aut", "did you mean auto"),
        ("escra.weight", "0", "1 to 10000"),
        ("escra.weight", "10001", "1 to 10000"),
        ("escra.weight", "-1", "whole number"),
        ("escra.weight", "1.5", "whole number"),
        ("escra.weight", "٣", "whole number"),
        ("escra.cpu.max", "lots", "not an amount of CPU"),
        ("escra.cpu.max", "0", "would stop the container"),
        ("escra.cpu.max", "1001", "more than 1000 cores"),
        ("escra.cpu.max", "9" * 400, "32 characters"),
        ("escra.cpu.min", "-1", "not an amount of CPU"),
        ("escra.cpu.min", "1.6", r"escra.cpu.max='1.5'"),
        ("escra.memory.min", "3GiB", r"escra.memory.max='2GiB'"),
        ("escra.memory.max", "2 gallons", "not a size"),
        ("escra.memory.max", "0", "would stop the container"),
        ("escra.cpu.maximum", "1", "did you mean escra.cpu.max"),
        ("escra.wieght", "1", "did you mean escra.weight"),
        ("escra.", "1", "no such label"),
    ],
)
def test_what_is_wrong_is_named(label: str, value: str, said: str) -> None:
    with pytest.raises(LabelError, match=said) as raised:
        parse_labels({**VALID, label: value})
    assert label in str(raised.value)
    assert len(str(raised.value)) < 400


def test_a_missing_application_is_named() -> None:
    with pytest.raises(LabelError, match=r"escra.app is missing"):
        parse_labels({"escra.weight": "1"})


names = st.sampled_from(sorted(VALID)) | st.text().map("escra.".__add__) | st.text()
values = (
    st.text() | st.from_regex(r"\A[0-9]*\.?[0-9]*[mMkKgGiB]*\Z") | st.sampled_from(sorted(VALID.values()))
)


@given(st.dictionaries(names, values))
@example({"escra.app": "a", "escra.cpu.min": "9" * 400})
@example({"escra.app": "a", "escra.weight": "9" * 5000})
@example({"escra.app": "a", "escra." + "x" * 100_000: "y" * 100_000})
def test_any_labels_are_either_parsed_or_refused(labels: dict[str, str]) -> None:
    try:
        parsed = parse_labels(labels)
    except LabelError:
        return
    assert parsed.app == labels["escra.app"]
    assert 1 <= parsed.weight <= 10_000
    if parsed.cpu_min_milli is not None and parsed.cpu_max_milli is not None:
        assert parsed.cpu_min_milli <= parsed.cpu_max_milli
