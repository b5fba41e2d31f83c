"""Which connection is kept, handed out, and given up."""

from inferd_daemon.backends.transport import IdlePool


def test_the_last_used_comes_first_and_only_for_its_origin() -> None:
    pool: IdlePool[str] = IdlePool()
    for origin, connection in (("a", "a1"), ("b", "b1"), ("a", "a2")):
        pool.put(origin, connection, 0.0)
    assert pool.take("a") == "a2"
    assert pool.take("a") == "a1"
    assert pool.take("a") is None
    assert pool.take("b") == "b1"


def test_what_is_idle_for_too_long_goes() -> None:
    pool: IdlePool[str] = IdlePool(keep_alive_s=4.0)
    pool.put("a", "old", 0.0)
    pool.put("a", "new", 3.0)
    assert pool.expire(3.9) == []
    assert pool.expire(4.0) == ["old"]
    assert pool.take("a") == "new"


def test_the_oldest_goes_where_there_are_too_many() -> None:
    pool: IdlePool[int] = IdlePool(max_idle=2)
    for number in range(4):
        pool.put("a", number, 0.0)
    assert pool.expire(0.0) == [0, 1]
    assert pool.clear() == [2, 3]
    assert len(pool) == 0
