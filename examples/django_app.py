"""A Django project in one file, profiled: run it, then look at http://127.0.0.1:8000/ox_otel/metrics.

pip install ox-otel django gunicorn
OX_OTEL_TOKEN=$(openssl rand -hex 16) gunicorn django_app:application

Django mounts nothing by itself: what lies under /ox_otel is taken out before it, in the file that
is `wsgi.py` in a project of many files. All but the metrics needs the token:
curl -H "Authorization: Bearer $OX_OTEL_TOKEN" http://127.0.0.1:8000/ox_otel/status
"""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

import ox_otel
import ox_otel.wsgi


def index(request) -> HttpResponse:
    """Use some CPU."""
    return HttpResponse(sum(number % 7 for number in range(200_000)))


urlpatterns = [path("", index)]
settings.configure(ROOT_URLCONF=__name__, SECRET_KEY=os.urandom(32), ALLOWED_HOSTS=["127.0.0.1"])
ox_otel.install()
django, profiler = get_wsgi_application(), ox_otel.wsgi.app()


def application(environ, start_response):
    """Answer a request: what lies under /ox_otel by the profiler, all else by Django."""
    prefix, path = "/ox_otel", environ["PATH_INFO"]
    if not f"{path}/".startswith(f"{prefix}/"):
        return django(environ, start_response)
    environ["SCRIPT_NAME"] += prefix
    environ["PATH_INFO"] = path.removeprefix(prefix)
    return profiler(environ, start_response)
