"""What a store's tests ask of a reading."""

from tailwise.models.inspection import InspectionRequest, inspect


def least_read(request: InspectionRequest, most_bytes: float) -> int:
    """Bytes read, the least of up to three tries: on a busy machine the way looks long, and more is read."""
    least = inspect(request).bytes_read
    for _ in range(2):
        if least < most_bytes:
            break
        least = min(least, inspect(request).bytes_read)
    return least
