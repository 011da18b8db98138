"""The bad days, one function each: its name and its first sentence are what the report shows."""

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from faults.clock import wrong_clock
from faults.scenario_run import Scenario, ScenarioRun, TimeSpan, failpoint_environment
from tests.harness.bank_client import (
    HOT,
    BankDelivery,
    DeliveredTerms,
    DeliveryMix,
    KeepAliveConnection,
    make_delivery,
)
from tests.harness.procfile_stack import DATABASE_ERRORS, SHORT_TIMES, ManagedProcess, execute, wait_until
from tests.harness.servers import Server, lacking

ORGANIZATION = "FROM ledger_organization WHERE inn = %s"
DISK_BYTES = 250 * 2**20
WARM_SHUTDOWN_SECONDS_MAX = 40.0  # a pool process of billiard's waits 30 s for a count that may not come
SWEEP_SECONDS = float(SHORT_TIMES["SWEEP_INTERVAL_SECONDS"])
SCENARIOS: dict[str, Scenario] = {}


def scenario(
    mix: DeliveryMix | None = None,
    rate: float = 200.0,
    needs: Callable[[], str | None] = lambda: None,
    *,
    alone: bool = False,
    **stack: Any,
) -> Callable[[Callable[[ScenarioRun], None]], None]:
    def add(action: Callable[[ScenarioRun], None]) -> None:
        sentence = (action.__doc__ or "").partition("\n")[0]
        told = Scenario(action.__name__, sentence, action, stack, mix or DeliveryMix(), rate, needs, alone)
        SCENARIOS[action.__name__] = told

    return add


# Processes


@scenario(alone=True)
def calm(stage: ScenarioRun) -> None:
    """No fault at all, many workers on one hot organization: nothing has to be tried a second time."""
    stage.watch(5)
    attempted = stage.stack.sql("SELECT COUNT(*) FROM ingest_webhook WHERE attempts > 0")[0][0]
    stage.require(not attempted, f"{attempted} webhooks needed attempts of their own on a calm day")
    again = sum(worker.log_count("batch is tried again") for worker in stage.stack.workers)
    stage.require(not again, f"{again} batches had to be tried again on a calm day")
    stage.require(not stage.bank.count("unknown"), "a delivery got no answer on a calm day")


@scenario()
def pool_child_killed(stage: ScenarioRun) -> None:
    """kill -9 of a pool child of one of the workers, again and again."""
    for _ in stage.moments(8):
        child = stage.chance.choice(stage.stack.workers).random_child(stage.chance)
        stage.strike("kill -9 pool child", _kill, child)


@scenario()
def worker_killed(stage: ScenarioRun) -> None:
    """kill -9 of a worker's main process, its children orphaned, and a new one."""
    for _ in stage.moments(3):
        worker = stage.chance.choice(stage.stack.workers)
        stage.strike(f"kill -9 {worker.name}", worker.kill)
        worker.start()


@scenario()
def all_workers_killed(stage: ScenarioRun) -> None:
    """kill -9 of all workers with their children; for a while nobody works."""
    for _ in stage.moments(2):
        for worker in stage.stack.workers:
            stage.strike(f"kill -9 {worker.name}", worker.kill_group)
        stage.watch(1)
        for worker in stage.stack.workers:
            worker.start()


@scenario()
def web_child_killed(stage: ScenarioRun) -> None:
    """kill -9 of a web process in the middle of its requests."""
    for _ in stage.moments(6):
        child = stage.stack["web"].random_child(stage.chance)
        stage.strike("kill -9 web process", _kill, child)


@scenario()
def web_killed(stage: ScenarioRun) -> None:
    """kill -9 of the whole web server."""
    for _ in stage.moments(2):
        stage.strike("kill -9 web", stage.stack["web"].kill_group)
        stage.stack.start("web")


@scenario()
def beat_killed(stage: ScenarioRun) -> None:
    """kill -9 of the scheduler while the broker forgets every ring."""
    redis = stage.stack.broker
    for _ in stage.moments(2):
        stage.strike("kill -9 beat", stage.stack["beat"].kill)
        stage.strike("kill -9 redis", redis.kill)
        redis.start()
        stage.stack.start("beat")


@scenario(alone=True, environment={"BATCH_SIZE_MAX": "40"})
def warm_shutdown(stage: ScenarioRun) -> None:
    """SIGTERM with batches in flight, to a worker or its whole group: it finishes them, and ends well."""
    for number in stage.moments(4, 10):
        worker = stage.stack.workers[number % 2]
        stage.strike(
            f"SIGTERM {worker.name}", worker.send if number < 2 else worker.send_group, signal.SIGTERM
        )
        stage.require(worker.wait(WARM_SHUTDOWN_SECONDS_MAX) == 0, f"{worker.name} did not end well")
        worker.start()
    attempted = stage.stack.sql("SELECT COUNT(*) FROM ingest_webhook WHERE attempts > 0")[0][0]
    stage.require(not attempted, f"{attempted} webhooks needed attempts of their own after a warm shutdown")


@scenario(alone=True)
def rolling_restart(stage: ScenarioRun) -> None:
    """Web and workers are restarted one after the other; a bank that reconnects hears an answer each time."""
    for number in stage.moments(3, 10):
        stage.strike("reload web", stage.stack["web"].send, signal.SIGHUP)
        worker = stage.stack.workers[number % 2]
        stage.strike(f"restart {worker.name}", worker.send, signal.SIGTERM)
        worker.wait()
        stage.stack.start(worker.name)
    stage.require(not stage.bank.count("unknown"), f"{stage.bank.count('unknown')} deliveries got no answer")


@scenario()
def everything_at_once(stage: ScenarioRun) -> None:
    """kill -9 of any process, of Redis with a loss of all data, and of the database, in any order."""
    for _ in stage.moments(8, 12):
        servers: list[ManagedProcess | Server] = [stage.stack.broker, stage.stack.mariadb]
        victim = stage.chance.choice([*stage.stack.programs.values(), *servers])
        kill = victim.kill_group if isinstance(victim, ManagedProcess) else victim.kill
        stage.strike(f"kill -9 {victim.name}", kill)
        victim.start()


# Redis


@scenario(alone=True, redis_settings=["--appendonly", "no"])
def redis_killed_with_loss(stage: ScenarioRun) -> None:
    """kill -9 of Redis, all its data lost; no answer to the bank may change."""
    calm = stage.watch(4)
    begun = time.monotonic()
    for _ in stage.moments(3, 5):
        stage.strike("kill -9 redis", stage.stack.broker.kill)
        stage.watch(1)
        stage.stack.broker.start()
    stage.require_answers_as_in(calm, TimeSpan(begun, time.monotonic()))


@scenario(alone=True)
def redis_flushed(stage: ScenarioRun) -> None:
    """FLUSHALL again and again; no answer to the bank may change."""
    calm = stage.watch(4)
    begun = time.monotonic()
    for _ in stage.moments(8, 5):
        stage.strike("FLUSHALL", stage.stack.redis_command, "FLUSHALL")
    stage.require_answers_as_in(calm, TimeSpan(begun, time.monotonic()))


@scenario(alone=True)
def redis_stopped(stage: ScenarioRun) -> None:
    """SIGSTOP of Redis for 30 s, so that it takes connections and never answers."""
    calm = stage.watch(4)
    stage.strike("SIGSTOP redis", os.kill, stage.stack.broker.pid, signal.SIGSTOP)
    stage.require_answers_as_in(calm, stage.watch(30))


@scenario(alone=True)
def redis_full(stage: ScenarioRun) -> None:
    """Redis takes no more data."""
    calm = stage.watch(4)
    stage.strike("maxmemory", stage.stack.redis_command, "CONFIG SET maxmemory 1")
    stage.require_answers_as_in(calm, stage.watch(5))
    stage.stack.redis_command("CONFIG SET maxmemory 0")


@scenario(alone=True, broker=False)
def redis_absent(stage: ScenarioRun) -> None:
    """No broker from start to end: the sweeper alone finishes, within twice its period."""
    stage.strike("broker_unreachable", lambda: None)
    stage.watch(6)
    stage.quiet()
    stage.require(stage.quiet_seconds < 2 * SWEEP_SECONDS, f"the sweeper took {stage.quiet_seconds:.1f} s")


# MariaDB


@scenario()
def mariadb_killed(stage: ScenarioRun) -> None:
    """Five times kill -9 of the database under load."""
    for _ in stage.moments(5, 10):
        stage.strike("kill -9 mariadb", stage.stack.mariadb.kill)
        stage.watch(0.5)
        stage.stack.mariadb.start()


@scenario()
def mariadb_stopped(stage: ScenarioRun) -> None:
    """SIGSTOP of the database for 15 s."""
    stage.watch(1)
    stage.strike("SIGSTOP mariadb", os.kill, stage.stack.mariadb.pid, signal.SIGSTOP)
    stage.watch(15)


@scenario()
def mariadb_restarted(stage: ScenarioRun) -> None:
    """The database is shut down in good order, and is away for a while."""
    for _ in stage.moments(2, 4):
        stage.strike("restart mariadb", stage.stack.mariadb.stop)
        stage.watch(1.5)
        stage.stack.mariadb.start()


@scenario()
def connections_exhausted(stage: ScenarioRun) -> None:
    """Somebody else takes every connection that the database has."""
    stage.watch(2)
    with closing(stage.stack.session()) as watchman:
        execute(watchman, "SET GLOBAL max_connections = 10")
        for _ in stage.moments(2, 6):
            with all_connections(watchman, stage):
                stage.watch(2)
        execute(watchman, "SET GLOBAL max_connections = 151")


@scenario(rate=20)
def idle_connections_closed(stage: ScenarioRun) -> None:
    """The database closes connections that were idle for 2 s, and the bank comes by more seldom than that."""
    stage.stack.sql("SET GLOBAL wait_timeout = 2")
    with closing(stage.stack.session()) as watchman:
        stage.stack.close_sessions(watchman)
    for _ in stage.moments(3, 12):
        stage.strike("nothing to do for 3 s", lambda: None)
        stage.bank.pause(3)
    stage.require(not stage.bank.count("unknown"), "a delivery got no answer because its connection was idle")


@scenario(alone=True)
def hot_row_held(stage: ScenarioRun) -> None:
    """A foreign session holds the row of the hot organization for 15 s; the others must go on."""
    calm = stage.watch(4)
    with closing(stage.stack.session()) as foreign:
        stage.strike("row held", execute, foreign, f"SELECT * {ORGANIZATION} FOR UPDATE", HOT)
        stage.require_answers_as_in(calm, stage.watch(15))
        require_others_applied(stage, held_seconds=15, share=1)
        foreign.rollback()


@scenario()
def deadlocks(stage: ScenarioRun) -> None:
    """A foreign session locks log lines first and their organization after, so that deadlocks arise."""
    stage.watch(2)
    with closing(stage.stack.session()) as foreign:
        until = time.monotonic() + 8
        while time.monotonic() < until:
            stage.strike("locked in the wrong order", lock_backwards, foreign)
    seen = stage.stack.sql("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")[0][1]
    stage.require(int(seen), "no deadlock arose")


@scenario()
def lock_wait_timeouts(stage: ScenarioRun) -> None:
    """A foreign session holds the end of the hot organization's log for 12 s: who writes there gives up."""
    stage.watch(2)
    with closing(stage.stack.session()) as foreign:
        stage.strike("end of a log held", lock_end_of_log, foreign)
        stage.watch(12)
        seen = stage.stack.sql(
            "SELECT SUM(count) FROM information_schema.innodb_metrics WHERE name = 'lock_timeouts'"
        )
        foreign.rollback()
    stage.require(int(seen[0][0]), "nobody waited too long for a lock")


@scenario(
    DeliveryMix(pad_bytes=20_000),
    disk_bytes=DISK_BYTES,
    needs=lambda: None if os.geteuid() == 0 else "root, to mount a small disk",
)
def disk_full(stage: ScenarioRun) -> None:
    """The database's disk is full for a while."""
    stage.watch(1)
    filler = stage.stack.mariadb.folder / "data" / "filler"
    for _ in stage.moments(2, 10):
        stage.strike("disk full", fill, filler)
        stage.watch(3)
        filler.unlink()


# Stopped, not dead


@scenario()
def processes_stopped(stage: ScenarioRun) -> None:
    """SIGSTOP of any process for a second or two, children and parents."""
    for _ in stage.moments(5, 9):
        program = stage.chance.choice([*stage.stack.workers, stage.stack["web"], stage.stack["beat"]])
        pid = stage.chance.choice([program.pid, *program.children()])
        kind = "parent" if pid == program.pid else "child"
        stage.strike(f"SIGSTOP {program.name} {kind}", os.kill, pid, signal.SIGSTOP)
        stage.watch(stage.chance.uniform(0.5, 1.5))
        os.kill(pid, signal.SIGCONT)


@scenario(alone=True, environment=failpoint_environment())
def frozen_in_the_transaction(stage: ScenarioRun) -> None:
    """A worker process is stopped with its rows locked, longer than others wait for locks, and goes on."""
    stage.watch(1)
    stage.arm("locked", "stop")
    wait_until(lambda: stage.struck("locked", "stop"), "somebody is stopped")
    stage.watch(15)
    # The organizations of his batch are held as well.
    require_others_applied(stage, held_seconds=15, share=0.5)


@scenario(environment=failpoint_environment())
def frozen_and_thrown_out(stage: ScenarioRun) -> None:
    """A worker process is stopped with its rows locked; the database throws it out, and then it goes on."""
    for number in stage.moments(3, 6):
        window = ["locked", "logged", "marked"][number]
        stage.arm(window, "stop")
        wait_until(partial(stage.struck, window, "stop"), "somebody is stopped")
        stage.watch(0.5)
        with closing(stage.stack.session()) as watchman:
            stage.stack.close_sessions(watchman, "trx_mysql_thread_id FROM information_schema.innodb_trx")
        stage.watch(2)
        stage.stack.wake()


# Poison


@scenario(mix=DeliveryMix(poison=0.02), environment=failpoint_environment())
def poison(stage: ScenarioRun) -> None:
    """Some webhooks raise when they are posted, some kill their process; two admins replay at once."""
    stage.strike("poison", stage.watch, 6)
    stage.must_fail = is_poison
    stage.quiet()
    repair_and_replay(stage)


@scenario(alone=True, environment=failpoint_environment(), rate=1)
def poison_in_a_batch(stage: ScenarioRun) -> None:
    """A batch of 500 with three poisoned webhooks: 497 are applied within seconds, three end failed."""
    for worker in stage.stack.workers:
        worker.kill_group()
    batch = stage.bank.deliveries.batch(500)
    for place, kind in zip(stage.chance.sample(range(500), 3), ["RAISE", "KILL", "RAISE"], strict=True):
        batch[place] = make_delivery(replace(batch[place].terms, document_number=f"POISON-{kind}"))
    with closing(KeepAliveConnection(stage.stack.url_port)) as connection:
        for delivery in batch:
            stage.bank.deliver(delivery, connection)
    stage.strike("500 with three of poison", stage.stack.start, "worker1", "worker2")
    applied = "SELECT COUNT(*) FROM ingest_webhook WHERE status = 'applied'"
    seconds = wait_until(lambda: stage.stack.sql(applied)[0][0] >= 497, "497 are applied")
    stage.require(seconds < 10, f"497 took {seconds:.1f} s")
    stage.must_fail = is_poison
    stage.quiet()
    repair_and_replay(stage)


# Storms


@scenario()
def duplicate_storm(stage: ScenarioRun) -> None:
    """100 parallel deliveries of one operation, again and again, from 100 connections."""
    for _ in stage.moments(4):
        delivery = stage.bank.deliveries.batch(1)[0]
        stage.strike("100 deliveries of one operation", storm, stage, [delivery] * 100)


@scenario()
def conflict_storm(stage: ScenarioRun) -> None:
    """One operation under 50 different terms, before, while and after it is applied."""
    for number in stage.moments(3):
        when = ["before", "while", "after"][number]
        first = stage.bank.deliveries.batch(1)[0]
        others = [make_delivery(stage.bank.deliveries.other_terms(first.terms)) for _ in range(50)]
        if when == "before":
            for worker in stage.stack.workers:
                worker.send_group(signal.SIGSTOP)
        if when != "while":
            stage.bank.deliver(first)
        if when == "after":
            stage.watch(1)
        stage.strike(f"conflicts {when} applying", storm, stage, [*others, first])
        stage.stack.wake()


# The embedded default


@scenario(embedded=True, workers=1, rate=80)
def embedded_processes_killed(stage: ScenarioRun) -> None:
    """SQLite and the file broker: kill -9 of web, worker, scheduler and their children."""
    for _ in stage.moments(6, 9):
        program = stage.chance.choice(list(stage.stack.programs.values()))
        if stage.chance.random() < 0.5 and program.children():
            stage.strike(f"kill -9 a child of {program.name}", _kill, program.random_child(stage.chance))
        else:
            stage.strike(f"kill -9 {program.name}", program.kill_group)
            program.start()


@scenario(embedded=True, workers=1, rate=80)
def embedded_broker_deleted(stage: ScenarioRun) -> None:
    """SQLite and the file broker: the broker's folder is deleted, again and again."""
    for _ in stage.moments(5):
        stage.strike(
            "rm -r broker", partial(shutil.rmtree, ignore_errors=True), stage.stack.folder / "broker"
        )


# The network


@scenario(proxied=True)
def network_cut(stage: ScenarioRun) -> None:
    """The lines to database, broker and bank are cut, one after the other."""
    for _ in stage.moments(6, 8):
        line = stage.chance.choice(list(stage.stack.proxies))
        stage.strike(f"cut {line}", stage.stack.proxies[line].cut)
        stage.watch(stage.chance.uniform(0.2, 0.8))
        stage.stack.proxies[line].heal()


@scenario(proxied=True)
def network_slow(stage: ScenarioRun) -> None:
    """Each piece on the lines to database and broker takes 30 ms longer."""
    for line in ("database", "broker"):
        stage.strike(f"slow {line}", stage.stack.proxies[line].slow, 0.03)
    stage.watch(6)


@scenario(alone=True, proxied=True)
def broker_silent(stage: ScenarioRun) -> None:
    """The line to the broker swallows everything; connections of that time stay dead."""
    calm = stage.watch(4)
    stage.strike("silence broker", stage.stack.proxies["broker"].silence)
    stage.require_answers_as_in(calm, stage.watch(6))


@scenario(proxied=True)
def database_silent(stage: ScenarioRun) -> None:
    """The line to the database swallows everything; connections of that time stay dead."""
    stage.watch(2)
    stage.strike("silence database", stage.stack.proxies["database"].silence)
    stage.watch(9)


@scenario(proxied=True)
def reset_in_commit(stage: ScenarioRun) -> None:
    """The database's line is reset between a COMMIT, or the door's INSERT, and its answer."""
    line = stage.stack.proxies["database"]
    for _ in stage.moments(10, 8):
        words = stage.chance.choice([b"COMMIT", b"INSERT INTO ingest_webhook"])
        stage.strike(f"reset at {words.decode()}", line.reset_at, words)
        wait_until(lambda: not line.waits_to_reset(), "somebody sends these words", 10)


# Clocks


def with_clocks(*programs: str, offset: str = "") -> Callable[[Callable[[ScenarioRun], None]], None]:
    """The clocks of `programs` are off; some poison, because only attempts look at the clock."""
    clocks = dict.fromkeys(programs, wrong_clock(offset))
    needs = partial(lacking, "libfaketime")
    return scenario(
        DeliveryMix(poison=0.03), needs=needs, environment=failpoint_environment(), environments=clocks
    )


@with_clocks("worker1", "worker2", offset="+1d")
def workers_a_day_ahead(stage: ScenarioRun) -> None:
    """The workers' clocks are a day ahead, and then set right: what they put off must not wait for a day."""
    stage.must_fail = is_poison
    stage.watch(5)
    for worker in stage.stack.workers:
        stage.strike("clock set right", worker.kill_group)
        worker.environment |= wrong_clock("+0d")


@with_clocks("worker1", "worker2", offset="-1d")
def workers_a_day_behind(stage: ScenarioRun) -> None:
    """The workers' clocks are a day behind."""
    stage.must_fail = is_poison
    stage.strike("a day behind", stage.watch, 5)


@with_clocks("worker1", "worker2", "beat")
def clocks_stepping_back(stage: ScenarioRun) -> None:
    """The clocks of workers and scheduler step back by minutes, again and again."""
    stage.must_fail = is_poison
    for number in stage.moments(5):
        step = f"-{number * 10 + stage.chance.randrange(10)}m"
        stage.strike(f"clock at {step}", (stage.stack.folder / "clock").write_text, step)


# Our own code


@scenario(environment=failpoint_environment())
def fault_points_in_the_worker(stage: ScenarioRun) -> None:
    """Raise and exit at each window between claiming a batch and acknowledging its message."""
    windows = ["locked", "claimed", "marked", "logged", "posted", "applied"]
    strike_windows(stage, [(window, action) for window in windows for action in ("raise", "exit")])


@scenario(environment=failpoint_environment())
def fault_points_in_web(stage: ScenarioRun) -> None:
    """Raise and exit between storing and ringing, and between ringing and answering."""
    strike_windows(
        stage, [(window, action) for window in ("stored", "rung") for action in ("raise", "exit", "exit")]
    )


@scenario(environment=failpoint_environment(), mix=DeliveryMix(poison=0.01))
def fault_points_in_attempts(stage: ScenarioRun) -> None:
    """Raise and exit while webhooks are applied one by one."""
    stage.must_fail = is_poison
    strike_windows(
        stage, [(window, action) for window in ("begun", "applied-alone") for action in ("raise", "exit")]
    )


@scenario()
def rings_lost(stage: ScenarioRun) -> None:
    """A backlog builds up while nobody works, and then every ring is lost: the sweeper must find it."""
    for worker in stage.stack.workers:
        stage.strike(f"kill -9 {worker.name}", worker.kill_group)
    stage.watch(3)
    stage.bank.close()
    stage.bank_tries_again = False  # one ring of that would have all of the backlog applied
    stage.watch(0.5)  # until the last ring is sent
    stage.strike("FLUSHALL", stage.stack.redis_command, "FLUSHALL")


# How


def storm(stage: ScenarioRun, deliveries: Sequence[BankDelivery]) -> None:
    """Send them all at the same moment, each over a connection of its own."""
    together = threading.Barrier(len(deliveries))

    def send(delivery: BankDelivery) -> None:
        together.wait(timeout=30)
        stage.bank.deliver(delivery)

    with ThreadPoolExecutor(len(deliveries)) as pool:
        list(pool.map(send, deliveries))


def strike_windows(stage: ScenarioRun, plan: list[tuple[str, str]]) -> None:
    """Each (window, act) once, in an order of the seed's, and wait until somebody came by."""
    stage.chance.shuffle(plan)
    for number in stage.moments(len(plan), 8):
        stage.arm(*plan[number])
    for point in plan:
        wait_until(partial(stage.struck, *point), f"somebody came to {point}", 20)


def is_poison(terms: DeliveredTerms) -> bool:
    return terms.document_number.startswith("POISON-")


def repair_and_replay(stage: ScenarioRun) -> None:
    """Two admins replay what has failed, at once; everything must be applied then."""
    failed = stage.stack.sql("SELECT COUNT(*) FROM ingest_webhook WHERE status = 'failed'")[0][0]
    (stage.stack.folder / "repaired").touch()
    with ThreadPoolExecutor(2) as admins:
        said = list(admins.map(lambda _: stage.stack.manage("replay", "--failed").stdout, range(2)))
    replayed = sum(int(number) for words in said for number in re.findall(r"(\d+) replayed", words))
    stage.require(failed and replayed == failed, f"{failed} had failed, two admins replayed {replayed}")
    stage.must_fail = lambda terms: False


def require_others_applied(stage: ScenarioRun, held_seconds: int, share: float) -> None:
    """The hot organization is held since `held_seconds`: of what came for others since then, but for the last
    two seconds, this share must be applied.
    """
    came = "received_at > UTC_TIMESTAMP(6) - INTERVAL %s SECOND AND payer_inn <> %s"
    before = "received_at < UTC_TIMESTAMP(6) - INTERVAL 2 SECOND"
    query = (
        f"SELECT COUNT(*), COALESCE(SUM(status = 'applied'), 0) FROM ingest_webhook WHERE {came} AND {before}"
    )
    ((others, applied),) = stage.stack.sql(query, held_seconds, HOT)
    sentence = f"while one organization was held, {applied} of {others} webhooks of others were applied"
    stage.require(others and applied >= share * int(others), sentence)


def lock_backwards(session: Any) -> None:
    try:
        lock_end_of_log(session)
        time.sleep(0.02)
        execute(session, f"SELECT * {ORGANIZATION} FOR UPDATE", HOT)
    except DATABASE_ERRORS:
        pass  # this session was the victim
    session.rollback()


def lock_end_of_log(session: Any) -> None:
    """Of the hot organization: its newest lines and, at MySQL's own isolation level, the gap behind them."""
    ((key,),) = execute(session, f"SELECT id {ORGANIZATION}", HOT)
    newest = "SELECT * FROM ledger_balancelog WHERE organization_id = %s ORDER BY seq DESC LIMIT 3 FOR UPDATE"
    execute(session, newest, key)


@contextmanager
def all_connections(watchman: Any, stage: ScenarioRun) -> Iterator[None]:
    """Throw everybody out, and take their places until none is left."""
    with ExitStack() as taken:
        stage.strike("all connections taken", stage.stack.close_sessions, watchman)
        with suppress(*DATABASE_ERRORS):
            while True:
                taken.enter_context(closing(stage.stack.session()))
        yield


def fill(file: Path) -> None:
    """Until the disk is full, to the last byte."""
    with file.open("ab", buffering=0) as filler, suppress(OSError):
        for piece in (b"0" * 2**20, b"0" * 512, b"0"):
            with suppress(OSError):
                while filler.write(piece):
                    pass


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it may have ended a moment ago
        os.kill(pid, signal.SIGKILL)
