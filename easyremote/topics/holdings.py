"""Which partitions of its topic a member of a group holds, and since when. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = ["Holdings"]


class Holdings:
    """The partitions that the group has given to this member and not taken away.

    A partition that goes and comes back is read from where the group stands, which may be before what was read of it:
    who has read something remembers the `turn` in which that was, and asks whether it is `held_since`.

    Examples
    --------
    >>> held = Holdings()
    >>> held.give([0, 1]); read_in = held.turn
    >>> held.take([1]); 1 in held, held.held_since(0, read_in)
    (False, True)
    >>> held.give([1]); 1 in held, held.held_since(1, read_in)
    (True, False)
    """

    def __init__(self) -> None:
        self.turn = 0
        """How often partitions were given."""
        self._given_in: dict[int, int] = {}

    def __contains__(self, partition: object) -> bool:
        return partition in self._given_in

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._given_in))

    def __len__(self) -> int:
        return len(self._given_in)

    def give(self, partitions: Iterable[int]) -> None:
        """Note partitions that are this member's from here on."""
        self.turn += 1
        self._given_in |= dict.fromkeys(partitions, self.turn)

    def take(self, partitions: Iterable[int]) -> None:
        """Note partitions that are not this member's any more."""
        for partition in partitions:
            self._given_in.pop(partition, None)

    def held_since(self, partition: int, turn: int) -> bool:
        """Say whether a partition is held, without a break since that turn."""
        given_in = self._given_in.get(partition)
        return given_in is not None and given_in <= turn

    def part(self, messages: Sequence[Message]) -> dict[int, Sequence[Message]]:
        """Part a batch by partition; what was on its way when its partition was taken is left out."""
        numbers = [message.partition() or 0 for message in messages]
        return {
            number: messages
            if numbers.count(number) == len(numbers)
            else [message for message, its in zip(messages, numbers, strict=True) if its == number]
            for number in dict.fromkeys(numbers)
            if number in self._given_in
        }
