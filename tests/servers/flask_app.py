"""The application as a Flask app."""

import app
from flask import Flask

flask_app = Flask(__name__)


@flask_app.get("/")
def index() -> str:
    """Answer a request."""
    app.burn()
    return "burned"
