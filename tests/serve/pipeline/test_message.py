"""Laws of messages and their acknowledgers."""

import pytest

from triptych.errors import ConfigError, DeadlineExceeded, InputError, ServeError
from triptych.serve.pipeline.acknowledger import NoopAcknowledger, acknowledge
from triptych.serve.pipeline.message import Message, rows_of
from triptych.serve.supervise.failure import Failure


class Diary:
    """An acknowledger that writes down what it is told."""

    def __init__(self):
        self.told = []

    def ack(self, successful, failed):
        self.told.append(([m.data for m in successful], [m.data for m in failed]))


class Raising:
    """An acknowledger that cannot be told anything."""

    def ack(self, successful, failed):
        raise RuntimeError("no")


def test_each_acknowledger_is_told_once_of_all_its_messages():
    one, two = Diary(), Diary()
    messages = [Message(1, one).put_result(0), Message(2, two).failed("x"), Message(3, one).failed("x")]
    acknowledge(messages)
    acknowledge(messages)
    assert one.told == [([1], [3])]
    assert two.told == [([], [2])]


def test_a_raising_acknowledger_harms_nobody_else(caplog):
    diary = Diary()
    acknowledge([Message(1, Raising()), Message(2, diary).put_result(0)])
    assert diary.told == [([2], [])]
    assert "Raising raised" in caplog.text


def test_acknowledged_at_once_means_never_again():
    diary = Diary()
    message = Message(1, diary).ack_immediately()
    acknowledge([message])
    assert diary.told == [([1], [])]
    with pytest.raises(ConfigError):
        message.configure_ack(diary)


def test_the_last_configured_acknowledger_is_told():
    first, second = Diary(), Diary()
    acknowledge([Message(1, first).configure_ack(second, ack_ref=9).put_result(0)])
    assert (first.told, second.told) == ([], [([1], [])])


def test_what_is_cancelled_stays_cancelled():
    message = Message(1, NoopAcknowledger())
    message.cancel(DeadlineExceeded("late"))
    message.put_result(2).failed("other")
    message.cancel()
    assert message.status == "cancelled"
    assert isinstance(message.error, DeadlineExceeded)


def test_what_is_answered_cannot_be_cancelled():
    message = Message(1, NoopAcknowledger()).put_result(2)
    message.cancel()
    assert (message.status, message.result) == ("ok", 2)


def test_reasons_become_errors_a_caller_may_see():
    def reason(why):
        return Message(0, NoopAcknowledger()).failed(why).error

    assert isinstance(reason("full"), ServeError)
    assert isinstance(reason(Failure("InputError", "x")), InputError)
    assert isinstance(reason(InputError("x")), InputError)
    assert "secret" not in str(reason(ValueError("secret")))


def test_rows_are_counted_not_messages():
    assert rows_of([Message(0, NoopAcknowledger(), rows=3), Message(0, NoopAcknowledger())]) == 4
