"""What the demo says."""

from demo import HOSTS, compared


def test_the_comparison_fits_a_terminal_and_says_of_each_vendor_what_is_so() -> None:
    """Go's TLS is the reason only where Go's program ran."""
    for host in HOSTS:
        for seen, counted, opaque, verdict in [
            (0, 0, False, "not called"),
            (0, 0, True, "not called"),
            (0, 40, True, "not read: Go's TLS"),
            (123_456, 123_456, False, "equal"),
            (40, 41, False, "DIFFERENT"),
        ]:
            line = compared({"host": host, "farcall": seen, "vendor": counted, "opaque": opaque})
            assert line.endswith(f"counted   {verdict}"), line
            assert len(line) <= 80, line
