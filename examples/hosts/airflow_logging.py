"""What Airflow's ``logging_config_class`` names: its own configuration, with room for more."""

from __future__ import annotations

import copy

from airflow.config_templates.airflow_local_settings import DEFAULT_LOGGING_CONFIG


LOGGING_CONFIG = copy.deepcopy(DEFAULT_LOGGING_CONFIG)
