"""A DAG of Airflow: docs/hosts/airflow.md."""

from __future__ import annotations

import datetime as dt
import logging

from airflow.sdk import dag, task
from billing import pay


log = logging.getLogger("dag")


@dag(schedule=None, start_date=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc))
def billing_dag() -> None:
    """Bill once."""

    @task
    def bill() -> None:
        pay("i-0", "u-0")

    bill()


billing_dag()
