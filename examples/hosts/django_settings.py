"""The settings of a Django site."""

from __future__ import annotations


DEBUG = True
SECRET_KEY = "not for production"  # noqa: S105 - it says so
ROOT_URLCONF = "django_urls"
USE_TZ = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "INFO", "handlers": ["console"]},
}
