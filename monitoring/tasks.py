from celery import shared_task

from monitoring import throughput


@shared_task(ignore_result=True)
def record_throughput() -> None:
    throughput.record_throughput()
