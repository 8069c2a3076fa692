"""A client of kv, written from docs/protocol.md with only Python's standard library and protobuf.

    client.py HOST PORT VECTORS

checks itself against the test vectors. Then it runs every command against the server, publishes
and subscribes, and sends every frame that the server should refuse. `abi_pb2`, which protoc
generates from abi.proto, must be on the path.
"""

import collections
import gzip
import json
import socket
import struct
import sys

from abi_pb2 import (
    CommandRequest, CommandResponse, Hdel, Hello, Hexist, Hget, Hgetall, Hmdel, Hmexist, Hmget,
    Hmset, Hscan, Hset, Info, Kvpair, Ping, PSubscribe, Publish, PUnsubscribe, Subscribe,
    Unsubscribe, Value,
)
from google.protobuf import json_format

COMPRESSED = 1 << 31
THRESHOLD = 1436


def encode(message):
    """The frame of a message."""
    payload, flag = message.SerializeToString(), 0
    if len(payload) > THRESHOLD:
        member = gzip.compress(payload)
        if len(member) < len(payload):
            payload, flag = member, COMPRESSED
    return struct.pack(">I", flag | len(payload)) + payload


def decode(read, kind):
    """The message of the next frame. `read(n)` returns n bytes."""
    (header,) = struct.unpack(">I", read(4))
    payload = read(header & ~COMPRESSED)
    if header & COMPRESSED:
        payload = gzip.decompress(payload)
    return kind.FromString(payload)


class Client:
    """A connection. Requests are answered in order, with pushes between the answers."""

    def __init__(self, host, port):
        self.pushes = collections.deque()
        self.socket = socket.create_connection((host, port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, **command):
        self.socket.sendall(encode(CommandRequest(**command)))

    def receive(self):
        """The next answer. Pushes before it are kept."""
        while (response := decode(self.read, CommandResponse)).subscription:
            self.pushes.append(response)
        return response

    def push(self):
        """The next push."""
        return self.pushes.popleft() if self.pushes else decode(self.read, CommandResponse)

    def ask(self, **command):
        self.send(**command)
        return self.receive()

    def read(self, count):
        parts = []
        while count:
            part = self.socket.recv(count)
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def check(got, wanted, what):
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, wanted {wanted!r}")


def of_bytes(data):
    """A `read` over bytes in memory."""
    rest = memoryview(data)

    def read(count):
        nonlocal rest
        part, rest = rest[:count], rest[count:]
        return bytes(part)

    return read


def check_frames(frames):
    kinds = {"CommandRequest": CommandRequest, "CommandResponse": CommandResponse}
    for vector in frames:
        kind = kinds[vector["type"]]
        wanted = json_format.ParseDict(vector["message"], kind())
        message = decode(of_bytes(bytes.fromhex(vector["frame"])), kind)
        message.DiscardUnknownFields()
        check(message, wanted, vector["name"])
        check(decode(of_bytes(encode(wanted)), kind), wanted, vector["name"])


def check_commands(client):
    def values(response):
        check(response.status, 200, response.message)
        return list(response.values)

    one, two, unset = Value(integer=1), Value(string="two" * 1000), Value()
    pairs = [Kvpair(key="a", value=one), Kvpair(key="b", value=two)]
    check(values(client.ask(hset=Hset(table="py", pair=pairs[0]))), [unset], "hset")
    check(values(client.ask(hset=Hset(table="py", pair=pairs[0]))), [one], "hset again")
    check(values(client.ask(hget=Hget(table="py", key="a"))), [one], "hget")
    check(values(client.ask(hmset=Hmset(table="py", pairs=pairs))), [one, unset], "hmset")
    check(values(client.ask(hmget=Hmget(table="py", keys=["b", "x", "a"]))), [two, unset, one], "hmget")
    everything = client.ask(hgetall=Hgetall(table="py")).pairs
    check(sorted(everything, key=lambda pair: pair.key), pairs, "hgetall")
    check(list(client.ask(hscan=Hscan(table="py")).pairs), pairs, "hscan")
    check(list(client.ask(hscan=Hscan(table="py", limit=1)).pairs), pairs[:1], "hscan, the first")
    check(list(client.ask(hscan=Hscan(table="py", **{"from": "a\0"})).pairs), pairs[1:], "hscan from a key")
    check(values(client.ask(hexist=Hexist(table="py", key="a"))), [Value(bool=True)], "hexist")
    both = [Value(bool=False), Value(bool=True)]
    check(values(client.ask(hmexist=Hmexist(table="py", keys=["x", "b"]))), both, "hmexist")
    check(values(client.ask(hdel=Hdel(table="py", key="a"))), [one], "hdel")
    check(values(client.ask(hmdel=Hmdel(table="py", keys=["a", "b"]))), [unset, two], "hmdel")
    check(client.ask(hget=Hget(table="py", key="a")).status, 404, "hget of nothing")
    check(client.ask().status, 400, "no command")
    info = client.ask(info=Info())
    check(info.status, 200, info.message)
    facts = {pair.key: pair.value for pair in info.pairs}
    check(facts["storage"], Value(string="memory"), "info")
    check(facts["max_message_size"], Value(integer=16 << 20), "info")
    for number in range(1000):
        client.send(hset=Hset(table="py", pair=Kvpair(key="n", value=Value(integer=number))))
    answers = [values(client.receive())[0].integer for _ in range(1000)]
    check(answers, [0, *range(999)], "1000 pipelined requests")


def check_pushes(publisher, subscriber):
    def subscribe(**command):
        return subscriber.ask(**command).values[0].integer

    topic = subscribe(subscribe=Subscribe(topic="py"))
    again = subscribe(subscribe=Subscribe(topic="py"))
    pattern = subscribe(psubscribe=PSubscribe(pattern="[a-p]?"))
    check([topic, again, pattern], [1, 2, 3], "ids")
    for text in ["small", "large" * 1000]:
        data = [Value(string=text), Value()]
        reached = publisher.ask(publish=Publish(topic="py", data=data))
        check(reached.values[0].integer, 3, "publish")
        check(subscriber.ask(ping=Ping()), CommandResponse(status=200), "ping")
        common = {"status": 200, "values": data, "topic": "py"}
        wanted = [CommandResponse(subscription=id, **common) for id in [topic, again]]
        wanted.append(CommandResponse(subscription=pattern, pattern="[a-p]?", **common))
        check([subscriber.push() for _ in range(3)], wanted, "pushes")
    check(subscriber.ask(unsubscribe=Unsubscribe(topic="py", id=pattern)).status, 404, "no such topic")
    check(subscriber.ask(unsubscribe=Unsubscribe(topic="py", id=topic)).status, 200, "unsubscribe")
    check(subscriber.ask(punsubscribe=PUnsubscribe(pattern="[a-p]?", id=pattern)).status, 200, "punsubscribe")
    check(subscriber.ask(psubscribe=PSubscribe(pattern="[")).status, 400, "a malformed pattern")
    check(publisher.ask(publish=Publish(topic="py")).values[0].integer, 1, "publish to what is left")
    check(subscriber.push(), CommandResponse(status=200, topic="py", subscription=again), "the last push")


def check_plain(client):
    """Answers are uncompressed once the client asks for that, and compressed again on request."""

    def header():
        (header,) = struct.unpack(">I", client.read(4))
        client.read(header & ~COMPRESSED)
        return header & COMPRESSED

    client.ask(hset=Hset(table="py", pair=Kvpair(key="long", value=Value(string="long" * 1000))))
    for word, wanted in [("off", 0), ("", 0), ("gzip", COMPRESSED)]:
        answer = client.ask(hello=Hello(client="client.py", version=1, compression=word))
        facts = {pair.key: pair.value for pair in answer.pairs}
        check(facts["protocol"], Value(integer=1), "hello")
        check(facts["compression"], Value(string="gzip" if wanted else "off"), "hello")
        client.send(hget=Hget(table="py", key="long"))
        check(header(), wanted, "whether an answer is compressed")
    check(client.ask(hello=Hello(compression="zstd")).status, 400, "a compression that there is not")


def check_refusals(host, port, refused):
    for vector in refused:
        client = Client(host, port)
        client.send(hget=Hget(table="py", key="n"))
        client.socket.sendall(bytes.fromhex(vector["frame"]))
        if "then" in vector:
            client.socket.shutdown(socket.SHUT_WR)
        check(client.receive().status, 200, vector["name"])
        response = client.receive()
        check(response.status, vector["status"], vector["name"])
        check(vector["error"] in response.message, True, response.message)
        try:
            client.receive()
            sys.exit(f"{vector['name']}: the connection goes on")
        except EOFError:
            pass


def main(host, port, vectors):
    with open(vectors, encoding="utf-8") as file:
        vectors = json.load(file)
    check_frames(vectors["frames"])
    check_commands(Client(host, int(port)))
    check_plain(Client(host, int(port)))
    check_pushes(Client(host, int(port)), Client(host, int(port)))
    check_refusals(host, int(port), vectors["refused"])
    print(f"{len(vectors['frames'])} frames, the commands, pushes and {len(vectors['refused'])} refusals: as specified")


if __name__ == "__main__":
    main(*sys.argv[1:])
