"""What the table shows is computed as bench/README.md says."""

from bench import cpu, scrape
from bench.comparison import heading, median, median_ratio, row
from bench.load import Window, percentile, summarise
from bench.serving import CASES


def test_percentiles_are_values_that_were_seen() -> None:
    latencies = [float(n) for n in range(1, 101)]
    assert percentile(latencies, 0.50) == 50
    assert percentile(latencies, 0.99) == 99
    assert percentile([7.0], 0.99) == 7


def test_a_window_counts_requests_and_shares_out_the_cpu_time() -> None:
    assert summarise([0.2, 0.1, 0.3, 0.4], seconds=2, cpu_seconds=1) == Window(2.0, 0.2, 0.4, 0.25)


def test_cpu_time_of_threads_that_came_meanwhile_counts_in_full() -> None:
    before = {(1, 1): 5_000_000_000, (1, 2): 1_000_000_000}
    after = {(1, 1): 6_000_000_000, (3, 3): 500_000_000}
    assert cpu.seconds_between(before, after) == 1.5


def test_the_ratio_is_that_of_a_typical_round() -> None:
    assert median_ratio([2.0, 30.0, 4.0], [1.0, 1.0, 2.0]) == 2.0


def test_each_number_has_its_own_median() -> None:
    windows = [Window(1, 30, 5, 7), Window(2, 10, 6, 8), Window(3, 20, 4, 9)]
    assert median(windows) == Window(2, 20, 5, 8)


def test_the_columns_stand_under_their_headings() -> None:
    _, columns = heading("Triton", "Tidepool").splitlines()
    line = row(CASES[0], [Window(1000, 0.001, 0.002, 0.0001)], [Window(2500, 0.0005, 0.002, 0.0002)])
    assert [n for n, c in enumerate(line) if c == "|"] == [n for n, c in enumerate(columns) if c == "|"]
    assert line.split("|")[3].split() == ["2.50", "0.50", "2.00"]


def test_scrapes_are_judged_within_each_pair() -> None:
    without = [Window(1000, 0.001, p99, 0.0001) for p99 in (0.010, 0.020, 0.030)]
    scraped = [Window(900, 0.001, p99, 0.0001) for p99 in (0.011, 0.018, 0.034)]
    heading, *lines = scrape.table(without, scraped).splitlines()
    assert heading.split() == ["p99", "ms", "least", "most", "req/s"]
    assert [line[22:].split() for line in lines] == [
        ["20.00", "10.00", "30.00", "1000"],
        ["18.00", "11.00", "34.00", "900"],
        ["+1.00", "-2.00", "+4.00"],
    ]
