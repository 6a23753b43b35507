"""Django's manage.py, for a site in two files: docs/hosts/django.md."""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_settings")
    execute_from_command_line(sys.argv)
