"""The wire format of the HTTP API as pydantic models, one module per resource.

The server's routes and the client use the same models. They reject unknown fields; a client that reads the response of
a newer server passes ``extra="ignore"`` to ``model_validate``. This package imports pydantic and ``models.card`` only.
"""
