"""Sample deliveries, for `jobhook send` and `jobhook dev`.

JobsiteOn documents neither the names of its events nor their payloads: all of this is assumed.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson

DEFAULT_TYPE = "invoice.paid"

_ADDRESS = {"line1": "12 Quarry Road", "line2": "", "city": "Boulder", "state": "CO", "zip": "80302"}
_DATA: dict[str, dict[str, Any]] = {
    "contact": {
        "id": "con_1001",
        "first_name": "Dana",
        "last_name": "Reyes",
        "company": "Reyes Rentals",
        "email": "dana@reyes-rentals.test",
        "phone": "+1 303 555 0142",
        "address": _ADDRESS,
        "notes": "",
        "tags": ["landlord"],
    },
    "property": {
        "id": "prop_2001",
        "address": _ADDRESS,
        "contact_ids": ["con_1001"],
        "primary_contact_id": "con_1001",
        "archived": False,
    },
    "job": {
        "id": "job_3001",
        "title": "Replace water heater",
        "description": "50 gallon, gas",
        "status": "in_progress",
        "previous_status": "scheduled",
        "priority": "normal",
        "contact_id": "con_1001",
        "property_id": "prop_2001",
        "assignee_ids": ["usr_7"],
        "due_date": "2026-12-01",
    },
    "invoice": {
        "id": "inv_4001",
        "number": "2026-0117",
        "status": "paid",
        "contact_id": "con_1001",
        "property_id": "prop_2001",
        "job_id": "job_3001",
        "invoice_date": "2026-11-02",
        "due_date": "2026-12-02",
        "line_items": [{"quantity": "1", "unit": "each", "unit_price": "1450.00", "total": "1450.00"}],
        "subtotal": "1450.00",
        "tax": "119.63",
        "total": "1569.63",
        "amount_paid": "1569.63",
        "balance": "0.00",
    },
    "payment": {
        "id": "pay_5001",
        "invoice_id": "inv_4001",
        "amount": "1569.63",
        "method": "check",
        "payment_date": "2026-11-20",
        "reference_number": "1182",
        "notes": "",
        "recorded_by": "usr_7",
    },
    "pricebook": {
        "id": "pb_6001",
        "name": "Labor, plumbing",
        "unit": "hour",
        "unit_price": "85.00",
        "tax_exempt": False,
        "tax_rate": "0.0825",
    },
}


def sample(type: str = DEFAULT_TYPE) -> bytes:
    """The body of a new event of a type: every call makes another event."""
    entity = type.partition(".")[0]
    return orjson.dumps(
        {
            "id": f"evt_{uuid4().hex[:16]}",
            "type": type,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "workspace_id": "ws_demo",
            "data": _DATA.get(entity, {"id": f"{entity}_1"}),
        }
    )
