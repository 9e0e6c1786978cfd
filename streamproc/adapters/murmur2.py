"""Kafka's default partitioner: which partition a key belongs on."""

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(content: bytes) -> int:
    """MurmurHash2 as the Java client computes it, as an unsigned 32-bit integer."""
    length = len(content)
    h = _SEED ^ length
    for start in range(0, length - length % 4, 4):
        k = int.from_bytes(content[start : start + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if rest := content[length - length % 4 :]:
        h = (h ^ int.from_bytes(rest, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """Where the Java client and aiokafka put `key`; librdkafka does with `partitioner=murmur2_random`."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
