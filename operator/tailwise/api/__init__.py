"""The documents that cross the product's boundary, as frozen pydantic models.

In: JSON or YAML of the two kinds, a model's profile, a node's hardware. Out: validated values, and the
CRDs generated from them. Field names are snake_case here and camelCase outside. Imports no other
package of Tailwise.
"""
