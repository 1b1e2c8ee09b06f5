"""Topics: what a subscription's wildcards matched, put into the topics that are published to."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import InputError

_PLACE = re.compile(r"\{(\d+)\}")


class Subscription:
    """A topic filter as MQTT defines it (3.1.1, section 4.7), which keeps what its wildcards matched.

    Attributes:
        text: the filter.
        wildcards: how many there are.
    """

    def __init__(self, text: str, option: str = "--subscribe") -> None:
        levels = text.split("/")
        for i, level in enumerate(levels):
            if ("+" in level or "#" in level) and (len(level) > 1 or (level == "#" and i + 1 < len(levels))):
                raise InputError(
                    f"{option} {text}: + stands for one whole level, # for all that remain, and nothing beside them"
                )
        if not text or "\0" in text:
            raise InputError(f"{option}: the topic is empty or holds a null character")
        if levels[0] == "$share":
            raise InputError(
                f"{option} {text}: a shared subscription gives each reader some of a topic's messages, and a "
                "stream needs all of them; divide the topics instead, such as plant/a/# and plant/b/#"
            )
        self.text = text
        self.wildcards = sum(level in ("+", "#") for level in levels)
        pattern = "/".join("([^/]*)" if level == "+" else re.escape(level) for level in levels)
        if levels[-1] == "#":
            # The level above matches too: plant/# takes plant, with nothing left.
            pattern = "(.*)" if len(levels) == 1 else pattern.removesuffix("/" + re.escape("#")) + "(?:/(.*))?"
        self._pattern = re.compile(pattern, re.DOTALL)

    def match(self, topic: str) -> tuple[str, ...] | None:
        """What each wildcard matched, or None where the topic is another."""
        found = self._pattern.fullmatch(topic)
        return None if found is None else tuple(group or "" for group in found.groups())


class TopicTemplate:
    """A topic to publish to, in which `{1}`, `{2}` stand for what the subscription's wildcards matched."""

    def __init__(self, text: str, option: str, subscription: Subscription | None) -> None:
        """Check the template.

        Args:
            text: the template.
            option: what to call it in an error.
            subscription: whose wildcards; None if there are none.

        Raises:
            InputError: it is no topic, names a wildcard that is not there, or what is published there would come
                back through the subscription.
        """
        wildcards = 0 if subscription is None else subscription.wildcards
        for place in _PLACE.findall(text):
            if not 1 <= int(place) <= wildcards:
                of = "there is no --subscribe" if subscription is None else f"{subscription.text} has {wildcards}"
                raise InputError(f"{option} {text}: no wildcard {{{place}}}; {of}")
        plain = _PLACE.sub("x", text)
        if not plain or re.search(r"[+#{}\0]", plain):
            raise InputError(
                f"{option} {text}: a topic to publish to has no +, # and braces other than {{1}}, {{2}}, …"
            )
        if subscription is not None and subscription.match(plain) is not None:
            raise InputError(
                f"{option} {text}: {subscription.text} matches that too, so what is published would come back as a "
                "message to answer; choose a topic that it does not match"
            )
        self._text = text

    def topic(self, matched: Sequence[str]) -> str:
        """The topic for what the wildcards matched."""
        return _PLACE.sub(lambda place: matched[int(place[1]) - 1], self._text)
