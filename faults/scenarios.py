"""The scenarios, one function each; the report shows its name and the first line of its docstring."""

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from faults.scenario_run import Scenario, ScenarioRun, TimeSpan, failpoint_environment
from tests.harness.bank_client import (
    HOT,
    BankDelivery,
    DeliveredTerms,
    DeliveryMix,
    KeepAliveConnection,
    make_delivery,
)
from tests.harness.clock_shim import wrong_clock
from tests.harness.procfile_stack import DATABASE_ERRORS, SHORT_TIMES, ManagedProcess, execute
from tests.harness.servers import Server, missing_reason
from tests.harness.wait import wait_until

ORGANIZATION = "FROM ledger_organization WHERE inn = %s"
BATCH = 200  # deliveries that wait for one commit
DISK_BYTES = 250 * 2**20
WARM_SHUTDOWN_SECONDS_MAX = 40.0  # a billiard pool process waits 30 s for a count that may never arrive
SWEEP_SECONDS = float(SHORT_TIMES["SWEEP_INTERVAL_SECONDS"])
SCENARIOS: dict[str, Scenario] = {}


def scenario(
    mix: DeliveryMix | None = None,
    rate: float = 200.0,
    missing: Callable[[], str | None] = lambda: None,
    *,
    exclusive: bool = False,
    **stack: Any,
) -> Callable[[Callable[[ScenarioRun], None]], None]:
    def add(action: Callable[[ScenarioRun], None]) -> None:
        name, summary = action.__name__, (action.__doc__ or "").partition("\n")[0]
        SCENARIOS[name] = Scenario(
            name, summary, action, stack, mix or DeliveryMix(), rate, missing, exclusive
        )

    return add


# Processes


@scenario(exclusive=True)
def calm(run: ScenarioRun) -> None:
    """No fault, many workers on one hot organization: nothing needs a second attempt."""
    run.observe(5)
    attempted = run.stack.sql("SELECT COUNT(*) FROM ingest_webhook WHERE attempts > 0")[0][0]
    run.require(not attempted, f"{attempted} webhooks needed individual retries without a fault")
    again = sum(worker.log_count("batch retried after checking") for worker in run.stack.workers)
    run.require(not again, f"{again} batches were retried without a fault")
    run.require(not run.bank.count("unknown"), "a delivery got no response without a fault")


@scenario()
def pool_child_killed(run: ScenarioRun) -> None:
    """kill -9 of a pool child of a random worker, repeatedly."""
    for _ in run.moments(8):
        child = run.rng.choice(run.stack.workers).random_child(run.rng)
        run.inject("kill -9 pool child", _kill, child)


@scenario()
def worker_killed(run: ScenarioRun) -> None:
    """kill -9 of a worker's main process, whose children are orphaned; then a new worker."""
    for _ in run.moments(3):
        worker = run.rng.choice(run.stack.workers)
        run.inject(f"kill -9 {worker.name}", worker.kill)
        worker.start()


@scenario()
def all_workers_killed(run: ScenarioRun) -> None:
    """kill -9 of all workers with their children; for 1 s no worker runs."""
    for _ in run.moments(2):
        for worker in run.stack.workers:
            run.inject(f"kill -9 {worker.name}", worker.kill_group)
        run.observe(1)
        for worker in run.stack.workers:
            worker.start()


@scenario()
def web_child_killed(run: ScenarioRun) -> None:
    """kill -9 of a web process during its requests."""
    for _ in run.moments(6):
        child = run.stack["web"].random_child(run.rng)
        run.inject("kill -9 web process", _kill, child)


@scenario()
def web_killed(run: ScenarioRun) -> None:
    """kill -9 of the whole web server."""
    for _ in run.moments(2):
        run.inject("kill -9 web", run.stack["web"].kill_group)
        run.stack.start("web")


@scenario()
def beat_killed(run: ScenarioRun) -> None:
    """kill -9 of the scheduler while the broker loses every ring."""
    redis = run.stack.broker
    for _ in run.moments(2):
        run.inject("kill -9 beat", run.stack["beat"].kill)
        run.inject("kill -9 redis", redis.kill)
        redis.start()
        run.stack.start("beat")


@scenario(exclusive=True, environment={"BATCH_SIZE_MAX": "40"})
def warm_shutdown(run: ScenarioRun) -> None:
    """SIGTERM to a worker or its whole group with batches in flight: it finishes them and exits with 0."""
    for number in run.moments(4, 10):
        worker = run.stack.workers[number % 2]
        run.inject(f"SIGTERM {worker.name}", worker.send if number < 2 else worker.send_group, signal.SIGTERM)
        run.require(worker.wait(WARM_SHUTDOWN_SECONDS_MAX) == 0, f"{worker.name} exited with an error")
        run.stack.start(worker.name)  # a worker that is not ready yet has no warm shutdown
    attempted = run.stack.sql("SELECT COUNT(*) FROM ingest_webhook WHERE attempts > 0")[0][0]
    run.require(not attempted, f"{attempted} webhooks needed individual retries after a warm shutdown")


@scenario(exclusive=True)
def rolling_restart(run: ScenarioRun) -> None:
    """Rolling restart of web and workers; a bank that reconnects gets a response each time."""
    for number in run.moments(3, 10):
        run.inject("reload web", run.stack["web"].send, signal.SIGHUP)
        worker = run.stack.workers[number % 2]
        run.inject(f"restart {worker.name}", worker.send, signal.SIGTERM)
        worker.wait()
        run.stack.start(worker.name)
    run.require(not run.bank.count("unknown"), f"{run.bank.count('unknown')} deliveries got no response")


@scenario()
def everything_at_once(run: ScenarioRun) -> None:
    """kill -9 of any process, of Redis with all its data, and of the database, in random order."""
    for _ in run.moments(8, 12):
        servers: list[ManagedProcess | Server] = [run.stack.broker, run.stack.mariadb]
        victim = run.rng.choice([*run.stack.programs.values(), *servers])
        kill = victim.kill_group if isinstance(victim, ManagedProcess) else victim.kill
        run.inject(f"kill -9 {victim.name}", kill)
        victim.start()


# Redis


@scenario(exclusive=True, redis_settings=["--appendonly", "no"])
def redis_killed_with_loss(run: ScenarioRun) -> None:
    """kill -9 of Redis with the loss of all its data; no response to the bank may change."""
    calm = run.observe(4)
    start = time.monotonic()
    for _ in run.moments(3, 5):
        run.inject("kill -9 redis", run.stack.broker.kill)
        run.observe(1)
        run.stack.broker.start()
    run.require_latency_as_in(calm, TimeSpan(start, time.monotonic()))


@scenario(exclusive=True)
def redis_flushed(run: ScenarioRun) -> None:
    """FLUSHALL repeatedly; no response to the bank may change."""
    calm = run.observe(4)
    start = time.monotonic()
    for _ in run.moments(8, 5):
        run.inject("FLUSHALL", run.stack.redis_command, "FLUSHALL")
    run.require_latency_as_in(calm, TimeSpan(start, time.monotonic()))


@scenario(exclusive=True)
def redis_stopped(run: ScenarioRun) -> None:
    """SIGSTOP of Redis for 30 s, so that it accepts connections and never responds."""
    calm = run.observe(4)
    run.inject("SIGSTOP redis", os.kill, run.stack.broker.pid, signal.SIGSTOP)
    run.require_latency_as_in(calm, run.observe(30))


@scenario(exclusive=True)
def redis_full(run: ScenarioRun) -> None:
    """Redis refuses writes: out of memory."""
    calm = run.observe(4)
    run.inject("maxmemory", run.stack.redis_command, "CONFIG SET maxmemory 1")
    run.require_latency_as_in(calm, run.observe(5))
    run.stack.redis_command("CONFIG SET maxmemory 0")


@scenario(exclusive=True, broker=False)
def redis_absent(run: ScenarioRun) -> None:
    """No broker from start to end: the sweeper alone finishes within twice its period."""
    run.inject("broker_unreachable", lambda: None)
    run.observe(6)
    run.drain()
    run.require(run.drain_seconds < 2 * SWEEP_SECONDS, f"the sweeper took {run.drain_seconds:.1f} s")


# MariaDB


@scenario()
def mariadb_killed(run: ScenarioRun) -> None:
    """kill -9 of the database under load, five times."""
    for _ in run.moments(5, 10):
        run.inject("kill -9 mariadb", run.stack.mariadb.kill)
        run.observe(0.5)
        run.stack.mariadb.start()


@scenario()
def mariadb_stopped(run: ScenarioRun) -> None:
    """SIGSTOP of the database for 15 s."""
    run.observe(1)
    run.inject("SIGSTOP mariadb", os.kill, run.stack.mariadb.pid, signal.SIGSTOP)
    run.observe(15)


@scenario()
def mariadb_restarted(run: ScenarioRun) -> None:
    """The database is shut down cleanly and stays down for 1.5 s."""
    for _ in run.moments(2, 4):
        run.inject("restart mariadb", run.stack.mariadb.stop)
        run.observe(1.5)
        run.stack.mariadb.start()


@scenario()
def connections_exhausted(run: ScenarioRun) -> None:
    """A foreign client occupies every database connection."""
    run.observe(2)
    with closing(run.stack.session()) as observer:
        execute(observer, "SET GLOBAL max_connections = 10")
        for _ in run.moments(2, 6):
            with occupy_connections(observer, run):
                run.observe(2)
        execute(observer, "SET GLOBAL max_connections = 151")


@scenario(rate=20)
def idle_connections_closed(run: ScenarioRun) -> None:
    """The database closes connections idle for 2 s, and the bank delivers less often than that."""
    run.stack.sql("SET GLOBAL wait_timeout = 2")
    with closing(run.stack.session()) as observer:
        run.stack.kill_sessions(observer)
    for _ in run.moments(3, 12):
        run.inject("idle for 3 s", lambda: None)
        run.bank.pause(3)
    run.require(not run.bank.count("unknown"), "a delivery got no response because its connection was idle")


@scenario(exclusive=True)
def hot_row_locked(run: ScenarioRun) -> None:
    """A foreign session locks the row of the hot organization for 15 s; other organizations must go on."""
    calm = run.observe(4)
    with closing(run.stack.session()) as foreign:
        run.inject("row locked", execute, foreign, f"SELECT * {ORGANIZATION} FOR UPDATE", HOT)
        run.require_latency_as_in(calm, run.observe(15))
        require_others_applied(run, locked_seconds=15, share=1)
        foreign.rollback()


@scenario()
def deadlocks(run: ScenarioRun) -> None:
    """A foreign session locks ledger entries first and their organization after, which causes deadlocks."""
    run.observe(2)
    with closing(run.stack.session()) as foreign:
        until = time.monotonic() + 8
        while time.monotonic() < until:
            run.inject("locked in the wrong order", lock_in_reverse, foreign)
    seen = run.stack.sql("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")[0][1]
    run.require(int(seen), "no deadlock occurred")


@scenario()
def lock_wait_timeouts(run: ScenarioRun) -> None:
    """A foreign session locks the end of the hot organization's log for 12 s: lock wait timeouts."""
    run.observe(2)
    with closing(run.stack.session()) as foreign:
        run.inject("end of a log locked", lock_log_end, foreign)
        run.observe(12)
        seen = run.stack.sql(
            "SELECT SUM(count) FROM information_schema.innodb_metrics WHERE name = 'lock_timeouts'"
        )
        foreign.rollback()
    run.require(int(seen[0][0]), "no lock wait timeout occurred")


@scenario(
    DeliveryMix(pad_bytes=20_000),
    disk_bytes=DISK_BYTES,
    missing=lambda: None if os.geteuid() == 0 else "root, to mount a small disk",
)
def disk_full(run: ScenarioRun) -> None:
    """The database's disk is full for 3 s, twice, and a batch of 200 deliveries arrives."""
    run.observe(1)
    data = run.stack.mariadb.folder / "data"
    allocate(data / "ib_logfile0")
    filler = data / "filler"
    for _ in run.moments(2, 10):
        run.inject("disk full", fill_disk, filler)
        with ThreadPoolExecutor(1) as aside:
            aside.submit(storm, run, run.bank.deliveries.batch(BATCH))
            run.observe(3)
            filler.unlink()


# Stopped processes


@scenario()
def processes_stopped(run: ScenarioRun) -> None:
    """SIGSTOP of any process, parent or child, for up to 1.5 s."""
    for _ in run.moments(5, 9):
        program = run.rng.choice([*run.stack.workers, run.stack["web"], run.stack["beat"]])
        pid = run.rng.choice([program.pid, *program.children()])
        kind = "parent" if pid == program.pid else "child"
        run.inject(f"SIGSTOP {program.name} {kind}", os.kill, pid, signal.SIGSTOP)
        run.observe(run.rng.uniform(0.5, 1.5))
        os.kill(pid, signal.SIGCONT)


@scenario(exclusive=True, environment=failpoint_environment())
def stopped_in_transaction(run: ScenarioRun) -> None:
    """A worker process is stopped holding row locks for longer than the lock wait timeout."""
    run.observe(1)
    run.arm("locked", "stop")
    wait_until(lambda: run.has_fired("locked", "stop"), "a process is stopped")
    run.observe(15)
    # The other organizations of its batch are locked as well.
    require_others_applied(run, locked_seconds=15, share=0.5)


@scenario(environment=failpoint_environment())
def stopped_and_session_killed(run: ScenarioRun) -> None:
    """A worker process is stopped holding row locks; the database kills its session, and it continues."""
    for number in run.moments(3, 6):
        step = ["locked", "logged", "marked"][number]
        run.arm(step, "stop")
        wait_until(partial(run.has_fired, step, "stop"), "a process is stopped")
        run.observe(0.5)
        with closing(run.stack.session()) as observer:
            run.stack.kill_sessions(observer, "trx_mysql_thread_id FROM information_schema.innodb_trx")
        run.observe(2)
        run.stack.resume_stopped()


# Poison


@scenario(mix=DeliveryMix(poison=0.02), environment=failpoint_environment())
def poison(run: ScenarioRun) -> None:
    """Some payments raise when posted, some kill their process; two admins replay concurrently."""
    run.inject("poison", run.observe, 6)
    run.must_fail = is_poison
    run.drain()
    fix_and_replay(run)


@scenario(exclusive=True, environment=failpoint_environment(), rate=1)
def poison_in_a_batch(run: ScenarioRun) -> None:
    """A batch of 500 with three poison payments: 497 are applied within seconds, three end failed."""
    for worker in run.stack.workers:
        worker.kill_group()
    batch = run.bank.deliveries.batch(500)
    for place, kind in zip(run.rng.sample(range(500), 3), ["RAISE", "KILL", "RAISE"], strict=True):
        batch[place] = make_delivery(replace(batch[place].terms, document_number=f"POISON-{kind}"))
    with closing(KeepAliveConnection(run.stack.url_port)) as connection:
        for delivery in batch:
            run.bank.deliver(delivery, connection)
    run.inject("500 with three poison payments", run.stack.start, "worker1", "worker2")
    applied = "SELECT COUNT(*) FROM ingest_webhook WHERE status = 'applied'"
    seconds = wait_until(lambda: run.stack.sql(applied)[0][0] >= 497, "497 are applied")
    run.require(seconds < 10, f"497 took {seconds:.1f} s")
    run.must_fail = is_poison
    run.drain()
    fix_and_replay(run)


# Storms


@scenario()
def duplicate_storm(run: ScenarioRun) -> None:
    """100 parallel deliveries of one operation over 100 connections, repeatedly."""
    for _ in run.moments(4):
        delivery = run.bank.deliveries.batch(1)[0]
        run.inject("100 deliveries of one operation", storm, run, [delivery] * 100)


@scenario()
def conflict_storm(run: ScenarioRun) -> None:
    """One operation with 50 different terms, before, while and after it is applied."""
    for number in run.moments(3):
        when = ["before", "while", "after"][number]
        first = run.bank.deliveries.batch(1)[0]
        others = [make_delivery(run.bank.deliveries.other_terms(first.terms)) for _ in range(50)]
        if when == "before":
            for worker in run.stack.workers:
                worker.send_group(signal.SIGSTOP)
        if when != "while":
            run.bank.deliver(first)
        if when == "after":
            run.observe(1)
        run.inject(f"conflicts {when} applying", storm, run, [*others, first])
        run.stack.resume_stopped()


# Batches: deliveries that wait for one commit


@scenario(rate=20)
def waiting_batch(run: ScenarioRun) -> None:
    """200 deliveries wait for one commit when the database is killed, frozen, or closes every connection."""
    database = run.stack.mariadb

    def kill() -> None:
        database.kill()
        database.start()

    def freeze() -> None:
        os.kill(database.pid, signal.SIGSTOP)
        run.observe(12)  # longer than a delivery waits
        os.kill(database.pid, signal.SIGCONT)

    def close_connections() -> None:
        with closing(run.stack.session()) as observer:
            run.stack.kill_sessions(observer)

    for name, fault in (("killed", kill), ("frozen", freeze), ("connections closed", close_connections)):
        with batch_waiting(run, run.bank.deliveries.batch(BATCH)):
            run.inject(f"{name} while a batch waits", fault)


@scenario(rate=20)
def clients_hang_up(run: ScenarioRun) -> None:
    """50 of 200 clients close their connections while their deliveries wait for one commit."""
    for _ in run.moments(2):
        leaving = run.bank.deliveries.batch(50)
        with batch_waiting(run, run.bank.deliveries.batch(BATCH - len(leaving))):
            run.inject("50 clients hang up", hang_up, run, leaving)


@scenario(rate=20)
def refused_rows(run: ScenarioRun) -> None:
    """The database refuses three rows of a batch of 200: the others are stored."""
    run.stack.sql(
        "CREATE TRIGGER refuse BEFORE INSERT ON ingest_webhook FOR EACH ROW"
        " IF NEW.document_number LIKE 'REFUSED%%' THEN"
        " SIGNAL SQLSTATE '22003' SET MYSQL_ERRNO = 1264, MESSAGE_TEXT = 'refused'; END IF"
    )
    deliveries = run.bank.deliveries.batch(BATCH)
    for position in (0, BATCH // 2, BATCH - 1):
        terms = replace(deliveries[position].terms, document_number=f"REFUSED-{position}")
        deliveries[position] = make_delivery(terms)
    refused = {deliveries[position].terms for position in (0, BATCH // 2, BATCH - 1)}
    run.inject("three rows are refused", storm, run, deliveries)
    for _ in range(4):  # a busy machine may not answer all in time
        if lost := [each for each in deliveries if each.terms not in refused | answered_ok(run)]:
            storm(run, lost)
    lost = [each for each in deliveries if each.terms not in refused | answered_ok(run)]
    run.require(not lost, f"{len(lost)} deliveries beside a refused row were not answered 200")
    run.require(not refused & answered_ok(run), "a refused row was answered 200")
    run.stack.sql("DROP TRIGGER refuse")


# The embedded stack


@scenario(embedded=True, workers=1, rate=80)
def embedded_processes_killed(run: ScenarioRun) -> None:
    """SQLite and the file broker: kill -9 of web, worker, scheduler and their children."""
    for _ in run.moments(6, 9):
        program = run.rng.choice(list(run.stack.programs.values()))
        if run.rng.random() < 0.5 and program.children():
            run.inject(f"kill -9 a child of {program.name}", _kill, program.random_child(run.rng))
        else:
            run.inject(f"kill -9 {program.name}", program.kill_group)
            program.start()


@scenario(embedded=True, workers=1, rate=80)
def embedded_broker_deleted(run: ScenarioRun) -> None:
    """SQLite and the file broker: the broker's folder is deleted repeatedly."""
    for _ in run.moments(5):
        run.inject("rm -r broker", partial(shutil.rmtree, ignore_errors=True), run.stack.folder / "broker")


# Network


@scenario(proxied=True)
def network_cut(run: ScenarioRun) -> None:
    """The connections to database, broker and bank are cut, one after the other."""
    for _ in run.moments(6, 8):
        name = run.rng.choice(list(run.stack.proxies))
        run.inject(f"cut {name}", run.stack.proxies[name].cut)
        run.observe(run.rng.uniform(0.2, 0.8))
        run.stack.proxies[name].heal()


@scenario(proxied=True)
def network_slow(run: ScenarioRun) -> None:
    """Each chunk to and from database and broker is delayed by 30 ms."""
    for name in ("database", "broker"):
        run.inject(f"delay {name}", run.stack.proxies[name].delay, 0.03)
    run.observe(6)


@scenario(exclusive=True, proxied=True)
def broker_black_holed(run: ScenarioRun) -> None:
    """The network to the broker drops everything; connections open at that time stay dead."""
    calm = run.observe(4)
    run.inject("black-hole broker", run.stack.proxies["broker"].black_hole)
    run.require_latency_as_in(calm, run.observe(6))


@scenario(proxied=True)
def database_black_holed(run: ScenarioRun) -> None:
    """The network to the database drops everything; connections open at that time stay dead."""
    run.observe(2)
    run.inject("black-hole database", run.stack.proxies["database"].black_hole)
    run.observe(9)


@scenario(proxied=True)
def reset_in_commit(run: ScenarioRun) -> None:
    """The database connection is reset between a COMMIT, or the endpoint's INSERT, and its response."""
    proxy = run.stack.proxies["database"]
    for _ in run.moments(10, 8):
        pattern = run.rng.choice([b"COMMIT", b"INSERT INTO ingest_webhook"])
        run.inject(f"reset after {pattern.decode()}", proxy.reset_after, pattern)
        wait_until(lambda: not proxy.is_reset_pending(), "a client sends these words", 10)


# Clocks


def clock_scenario(*programs: str, offset: str = "") -> Callable[[Callable[[ScenarioRun], None]], None]:
    """Register a scenario with wrong clocks in `programs`, and poison: only retries use the clock."""
    clocks = dict.fromkeys(programs, wrong_clock(offset))
    missing = partial(missing_reason, "libfaketime")
    return scenario(
        DeliveryMix(poison=0.03), missing=missing, environment=failpoint_environment(), environments=clocks
    )


@clock_scenario("worker1", "worker2", offset="+1d")
def workers_a_day_ahead(run: ScenarioRun) -> None:
    """The workers' clocks are a day ahead and then corrected: postponed retries must not wait for a day."""
    run.must_fail = is_poison
    run.observe(5)
    for worker in run.stack.workers:
        run.inject("clock set right", worker.kill_group)
        worker.environment |= wrong_clock("+0d")


@clock_scenario("worker1", "worker2", offset="-1d")
def workers_a_day_behind(run: ScenarioRun) -> None:
    """The workers' clocks are a day behind."""
    run.must_fail = is_poison
    run.inject("a day behind", run.observe, 5)


@clock_scenario("worker1", "worker2", "beat")
def clocks_stepping_back(run: ScenarioRun) -> None:
    """The clocks of workers and scheduler step back by minutes, repeatedly."""
    run.must_fail = is_poison
    for number in run.moments(5):
        step = f"-{number * 10 + run.rng.randrange(10)}m"
        run.inject(f"clock at {step}", (run.stack.folder / "clock").write_text, step)


# Failpoints


@scenario(environment=failpoint_environment())
def failpoints_in_worker(run: ScenarioRun) -> None:
    """Raise and exit at each step between claiming a batch and acknowledging its message."""
    steps = ["locked", "claimed", "marked", "logged", "posted", "applied"]
    fire_failpoints(run, [(step, action) for step in steps for action in ("raise", "exit")])


@scenario(environment=failpoint_environment())
def failpoints_in_web(run: ScenarioRun) -> None:
    """Raise and exit between storing and ringing, and between ringing and responding."""
    fire_failpoints(
        run, [(step, action) for step in ("stored", "rung") for action in ("raise", "exit", "exit")]
    )


@scenario(environment=failpoint_environment(), mix=DeliveryMix(poison=0.01))
def failpoints_in_retries(run: ScenarioRun) -> None:
    """Raise and exit while webhooks are retried one by one."""
    run.must_fail = is_poison
    fire_failpoints(
        run, [(step, action) for step in ("begun", "applied-individually") for action in ("raise", "exit")]
    )


@scenario()
def rings_lost(run: ScenarioRun) -> None:
    """A backlog grows while no worker runs, and every ring is lost: the sweeper must find it."""
    for worker in run.stack.workers:
        run.inject(f"kill -9 {worker.name}", worker.kill_group)
    run.observe(3)
    run.bank.close()
    run.bank_retries = False  # a single ring would apply the whole backlog
    run.observe(0.5)  # until the last ring is sent
    run.inject("FLUSHALL", run.stack.redis_command, "FLUSHALL")


# Helpers


def storm(run: ScenarioRun, deliveries: Sequence[BankDelivery]) -> None:
    """Send all deliveries at the same moment, each over its own connection."""
    together = threading.Barrier(len(deliveries))

    def send(delivery: BankDelivery) -> None:
        together.wait(timeout=30)
        run.bank.deliver(delivery)

    with ThreadPoolExecutor(len(deliveries)) as pool:
        list(pool.map(send, deliveries))


@contextmanager
def batch_waiting(run: ScenarioRun, deliveries: Sequence[BankDelivery]) -> Iterator[None]:
    """Lock the inbox, send `deliveries` at once, and enter the block when all of them wait."""
    with ThreadPoolExecutor(1) as aside, closing(run.stack.session()) as foreign:
        execute(foreign, "LOCK TABLES ingest_webhook WRITE")
        sending = aside.submit(storm, run, deliveries)
        terms = {delivery.terms for delivery in deliveries}
        waiting = partial(count_pending, run, terms)
        # Or more: the bank may repeat one of them meanwhile.
        wait_until(lambda: sending.done() or waiting() >= len(terms), "all deliveries are sent")
        run.observe(0.5)  # until they have arrived
        run.require(waiting() >= len(terms), "the batch did not wait")
        yield
        with suppress(*DATABASE_ERRORS):  # the fault may have closed it
            execute(foreign, "UNLOCK TABLES")
        sending.result()


def answered_ok(run: ScenarioRun) -> set[DeliveredTerms]:
    return {attempt.delivery.terms for attempt in list(run.bank.history) if attempt.outcome == "ok"}


def hang_up(run: ScenarioRun, deliveries: Sequence[BankDelivery]) -> None:
    for delivery in deliveries:
        run.bank.hang_up(delivery)


def count_pending(run: ScenarioRun, terms: Collection[DeliveredTerms]) -> int:
    return sum(attempt.pending and attempt.delivery.terms in terms for attempt in list(run.bank.history))


def fire_failpoints(run: ScenarioRun, plan: list[tuple[str, str]]) -> None:
    """Fire each (step, action) once, in a seeded order, and wait until a process has reached each."""
    run.rng.shuffle(plan)
    for number in run.moments(len(plan), 8):
        run.arm(*plan[number])
    for point in plan:
        wait_until(partial(run.has_fired, *point), f"a process reached {point}", 20)


def is_poison(terms: DeliveredTerms) -> bool:
    return terms.document_number.startswith("POISON-")


def fix_and_replay(run: ScenarioRun) -> None:
    """Replay the failed webhooks from two admins concurrently; everything must be applied afterwards."""
    failed = run.stack.sql("SELECT COUNT(*) FROM ingest_webhook WHERE status = 'failed'")[0][0]
    (run.stack.folder / "fixed").touch()
    with ThreadPoolExecutor(2) as admins:
        outputs = list(admins.map(lambda _: run.stack.manage("replay", "--failed").stdout, range(2)))
    replayed = sum(int(number) for words in outputs for number in re.findall(r"(\d+) replayed", words))
    run.require(failed and replayed == failed, f"{failed} had failed; two admins replayed {replayed}")
    run.must_fail = lambda terms: False


def require_others_applied(run: ScenarioRun, locked_seconds: int, share: float) -> None:
    """Require that this share of the other organizations' webhooks is applied while the hot one is locked.

    Counted are those received within the last `locked_seconds`, except the last two seconds.
    """
    recent = "received_at > UTC_TIMESTAMP(6) - INTERVAL %s SECOND AND payer_inn <> %s"
    settled = "received_at < UTC_TIMESTAMP(6) - INTERVAL 2 SECOND"
    columns = "COUNT(*), COALESCE(SUM(status = 'applied'), 0)"
    query = f"SELECT {columns} FROM ingest_webhook WHERE {recent} AND {settled}"
    ((others, applied),) = run.stack.sql(query, locked_seconds, HOT)
    violation = f"while one organization was locked, {applied} of {others} webhooks of others were applied"
    run.require(others and applied >= share * int(others), violation)


def lock_in_reverse(session: Any) -> None:
    try:
        lock_log_end(session)
        time.sleep(0.02)
        execute(session, f"SELECT * {ORGANIZATION} FOR UPDATE", HOT)
    except DATABASE_ERRORS:
        pass  # this session was the deadlock victim
    session.rollback()


def lock_log_end(session: Any) -> None:
    """Lock the hot organization's last entries and, at MySQL's default isolation, the gap after them."""
    ((key,),) = execute(session, f"SELECT id {ORGANIZATION}", HOT)
    newest = "SELECT * FROM ledger_balancelog WHERE organization_id = %s ORDER BY seq DESC LIMIT 3 FOR UPDATE"
    execute(session, newest, key)


@contextmanager
def occupy_connections(observer: Any, run: ScenarioRun) -> Iterator[None]:
    """Kill all sessions and occupy their connections until none is left."""
    with ExitStack() as occupied:
        run.inject("all connections occupied", run.stack.kill_sessions, observer)
        with suppress(*DATABASE_ERRORS):
            while True:
                occupied.enter_context(closing(run.stack.session()))
        yield


def allocate(file: Path) -> None:
    """Allocate the holes of a copied redo log, as InnoDB itself does: it aborts without space for it."""
    with file.open("r+b") as opened:
        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)


def fill_disk(file: Path) -> None:
    """Fill the disk to the last byte."""
    with file.open("ab", buffering=0) as filler, suppress(OSError):
        for piece in (b"0" * 2**20, b"0" * 512, b"0"):
            with suppress(OSError):
                while filler.write(piece):
                    pass


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it has ended
        os.kill(pid, signal.SIGKILL)
