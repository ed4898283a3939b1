"""Back up and restore, and move to another Redis, as deploy/RUNBOOKS.md says it."""

import shutil
from pathlib import Path

from redis import Redis

from app.cli.embedded import DURABLE, HOST, EmbeddedServer
from tests.support import wait_until
from tests.support.senders import Persistent
from tests.support.sentinel import follow, in_step, replicates, role
from tests.support.stack import MakeStack, Stack


def wait_until_done_once(stack: Stack, ids: set[str]) -> None:
    """P2, P5."""
    for id in ids:
        stack.wait_for(id, "done")
    assert {id: effects for id in ids if len(effects := stack.effects(id)) != 1} == {}


def test_a_move_to_another_redis_loses_and_repeats_nothing(make_stack: MakeStack, tmp_path: Path) -> None:
    """P1, P2, P5: deliveries go on coming, and what is refused meanwhile is sent again."""
    with (
        EmbeddedServer(tmp_path / "old", *DURABLE) as old_server,
        EmbeddedServer(tmp_path / "new", *DURABLE) as new_server,
    ):
        new = make_stack(new_server.url)
        old = make_stack(old_server.url)
        urls = [old.url]
        receiver, workers = old.start_receiver(), old.start_workers()
        with Persistent(lambda: urls) as sender:
            follow(new_server, old_server)
            wait_until(lambda: replicates(new_server) and in_step(old_server), "the copy")
            sender.wait_for_some()
            workers.terminate()  # what is in hand is ended; what comes waits
            assert workers.wait(30) == 0
            sender.wait_for_some()
            with Redis(port=old_server.port) as redis:
                redis.execute_command("FAILOVER", "TO", HOST, new_server.port)
            wait_until(lambda: role(new_server) == "master", "the new one to take over")
            new.start_receiver()
            urls[:] = [new.url]
            new.start_workers()
            sender.wait_for_some()
            receiver.terminate()
            receiver.wait(30)
        wait_until_done_once(new, sender.ids)
        assert new.inbox.stats().states["done"] == len(sender.ids)


def test_what_was_backed_up_is_there_after_a_restore(
    own_server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path
) -> None:
    """P2, P4, P5: what was done stays done and known, and what was open is worked on."""
    stack = make_stack(own_server.url)
    stack.start_receiver()
    workers = stack.start_workers()
    done = [stack.deliver_event("test.ok", f"evt_done_{n}") for n in range(20)]
    wait_until_done_once(stack, set(done))
    workers.terminate()
    assert workers.wait(30) == 0
    waiting = [stack.deliver_event("test.ok", f"evt_open_{n}") for n in range(20)]

    stack.redis.bgsave()
    wait_until(lambda: stack.redis.info("persistence")["rdb_bgsave_in_progress"] == 0, "the copy")
    copy = tmp_path / "valkey" / "dump.rdb"
    own_server.kill()
    stack.redis.close()

    folder = tmp_path / "restored"
    folder.mkdir()
    shutil.copy(copy, folder / "dump.rdb")
    # With `appendonly yes` the server would look for its log, find none, and start empty.
    restored = EmbeddedServer(folder, "--appendonly", "no", "--maxmemory-policy", "noeviction", port=own_server.port)
    with restored, Redis(port=restored.port) as redis:
        assert redis.zcard("jobhook:open") == len(waiting)
        redis.config_set("appendonly", "yes")
        wait_until(lambda: not redis.info("persistence")["aof_rewrite_in_progress"], "the log to be written")
        assert redis.info("persistence")["aof_last_bgrewrite_status"] == "ok"
    with EmbeddedServer(folder, *DURABLE, port=own_server.port):
        stack.start_workers()
        wait_until_done_once(stack, {*done, *waiting})
        wait_until(lambda: stack.deliver({"id": "evt_new", "type": "test.ok"}).status_code == 200, "the receiver")
        again = stack.deliver({"id": "evt_done_0", "type": "test.ok", "data": {"id": "res_1"}})
        assert again.json() == {"status": "duplicate", "id": done[0]}
        assert len(stack.effects(done[0])) == 1
        for process in stack.processes:
            if process.poll() is None:
                process.terminate()
                process.wait(30)
