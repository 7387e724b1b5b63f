"""Who is connected when there is no more room."""

from __future__ import annotations

import resource

from triptych.serve.http.crowd import KEPT, KEPT_PER_WORKER, Crowd, room, take_all_descriptors


class Guest:
    """Waits, or is being answered."""

    def __init__(self, *, is_waiting: bool = True) -> None:
        self.is_waiting, self.is_cut_off, self.is_turned_away = is_waiting, False, False

    def abort(self) -> None:
        self.is_cut_off = True

    def turn_away(self) -> None:
        self.is_turned_away = True


def test_the_oldest_who_only_waits_makes_room() -> None:
    crowd: Crowd[Guest] = Crowd(3)
    guests = [Guest(is_waiting=number > 0) for number in range(5)]
    for guest in guests:
        crowd.add(guest)
    assert [guest.is_cut_off for guest in guests] == [False, True, True, False, False]
    assert list(crowd) == [guests[0], guests[3], guests[4]]


def test_where_everyone_is_being_answered_the_newcomer_is_turned_away() -> None:
    crowd: Crowd[Guest] = Crowd(2)
    guests = [Guest(is_waiting=False) for _ in range(3)]
    for guest in guests:
        crowd.add(guest)
    assert [guest.is_turned_away for guest in guests] == [False, False, True]
    assert not any(guest.is_cut_off for guest in guests)


def test_workers_and_the_store_keep_their_descriptors() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
    assert room(10_000, workers=2) == 256 - KEPT - 2 * KEPT_PER_WORKER
    take_all_descriptors()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most)
