"""The doctor's findings for people.  Pure."""

from collections.abc import Sequence

from escra_controller.doctor.facts import Finding, Severity
from escra_controller.render import Paint, Tone, clean, plain
from escra_controller.views import counted

_WORDS: dict[Severity, tuple[str, Tone]] = {
    "ok": ("ok", "good"),
    "warn": ("warn", "warn"),
    "bad": ("BAD", "bad"),
}


def lines(findings: Sequence[Finding], paint: Paint = plain) -> list[str]:
    """One line each, what to do on the next, and a sum at the end.  Nothing is cut: it is to be read."""
    width = max((len(f.check) for f in findings), default=0)
    shown = []
    for finding in findings:
        word, tone = _WORDS[finding.severity]
        shown.append(f"{paint(word.ljust(4), tone)}  {finding.check.ljust(width)}  {clean(finding.found)}")
        if finding.advice:
            shown.append(f"{'':4}  {'':{width}}  {paint('->', 'dim')} {clean(finding.advice)}")
    bad, warn = (sum(f.severity == severity for f in findings) for severity in ("bad", "warn"))
    if not bad and not warn:
        return [*shown, "", "All is well."]
    problems = [f"{bad} bad"] * bool(bad) + [counted(warn, "warning")] * bool(warn)
    return [*shown, "", f"{' and '.join(problems)}."]
