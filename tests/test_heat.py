"""Heat: who has earned a series, and whose share says that it matters."""

from ox_otel._heat import HALF_LIFE, Heat


def test_a_few_hits_are_worth_a_cheap_place() -> None:
    """Who was seen a few times is worthy, hottest first; who was seen once is not."""
    heat: Heat[str] = Heat(10)
    heat.warm(["seen", "hot"], 5)
    heat.warm(["hot", "once"], 1)
    assert [(6, "hot"), (5, "seen")] == heat.worthy()
    assert [(5, "seen")] == heat.worthy(among=["seen", "once"])


def test_a_small_share_does_not_matter() -> None:
    """Only a share of all hits that is at least one in so many places matters."""
    heat: Heat[str] = Heat(10)
    heat.observe(1000)
    assert (False, True) == (heat.matters(99), heat.matters(100))


def test_where_nothing_happens_nobody_matters() -> None:
    """A share of next to nothing does not matter, however large it is."""
    heat: Heat[str] = Heat(10)
    heat.observe(4)
    assert (False, True) == (heat.matters(4), heat.matters(5))


def test_old_heat_fades() -> None:
    """After a half-life old hits weigh half, so that five of them are not enough any more."""
    heat: Heat[str] = Heat(10)
    heat.cool(0.0)
    heat.warm(["old"], 5)
    heat.cool(HALF_LIFE)
    heat.warm(["new"], 5)
    assert ["new"] == [candidate for _, candidate in heat.worthy()]
    heat.warm(["old"], 2.5)
    assert ["new", "old"] == sorted(candidate for _, candidate in heat.worthy())


def test_the_coldest_candidates_are_forgotten() -> None:
    """There are never more than four candidates a place; the hottest are kept."""
    heat: Heat[int] = Heat(10)
    for number in range(41):
        heat.warm([number], number)
    heat.cool(0.0)
    assert 20 == len(heat)
    assert {*range(21, 41)} == {candidate for _, candidate in heat.worthy()}


def test_heat_stays_finite_for_years() -> None:
    """The weights of a process that runs for a year do not overflow."""
    heat: Heat[str] = Heat(10)
    for day in range(400):
        heat.cool(86_400.0 * day)
        heat.observe(9)
        heat.warm(["daily"], 9)
    heat.warm(["once"], 1)
    [(hits, _)] = heat.worthy()
    assert heat.matters(hits)


def test_whoever_has_a_series_is_no_candidate() -> None:
    """A candidate that is forgotten begins anew."""
    heat: Heat[str] = Heat(10)
    heat.warm(["hot"], 9)
    heat.forget("hot")
    assert [] == heat.worthy()
