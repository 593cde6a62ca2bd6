"""Prints how the golden cases came out."""

import pytest

from tests.golden import summary


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line, when cases have run."""
    if text := summary.line():
        terminalreporter.write_line(text)
