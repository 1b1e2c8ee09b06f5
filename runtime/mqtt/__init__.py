"""A model as a service on MQTT: one stream per topic, every message taken exactly once.

MQTT at QoS 1 delivers every message at least once: a broker sends again what was not acknowledged. What makes "at
least" into "exactly" is the order of things, and that whatever comes again is recognised:

1. A message steps its topic's stream, and the answer is published at once (QoS 1). Nothing waits for the disk.
2. The new state, the sequence number, and the answer with what identifies its message are written and synced, all
   topics together in one transaction (`store`). One is begun when no further message waits, or `--save-every` later.
3. The message is acknowledged when both its transaction is on disk and the broker has confirmed the answer.

So after a kill or a power cut at any point, every message that the saved states do not have comes again, in order, is
stepped from the saved state, and gives the same numbers as before: an answer may be published twice, but never with
another value. A message that the saved states do have comes again only if it was not acknowledged. It is recognised,
the stream stays where it is, and the answer that was saved is published again. None is lost, since none is
acknowledged before its answer is the broker's.

A message is recognised by its sequence number, if it has one: one no higher than the topic's last is never stepped.
That also holds for repetitions that the sender makes. The messages of the last numbers are known by their values too:
with others it is an error, or, with `--sequence-reset`, the first of a sensor that counts anew. Without a number it is
known by the broker's DUP flag, its packet identifier, which MQTT keeps for a repetition, and its content, as long as
its acknowledgement may not have arrived; repetitions of the sender's cannot be told from new messages then.

What a broker keeps for new subscribers (a retained message) is an old reading, and is not stepped. A malformed message
or one that is not finite is reported on the topic for errors and acknowledged; no state knows of it.

What is on disk is checked (`row`, `schema`, `database`): a damaged stream is set aside, its topic told, and the others
go on (`salvage`).

All of this needs a broker that keeps its sessions; mosquitto does over a restart with `persistence true`.
"""
