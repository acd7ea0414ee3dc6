// JSON schemas for answers, as far as a grammar can hold an answer to all that they say. What it could not is refused
// by name, so that an answer never passes for one that fits. Source: JSON Schema 2020-12.
//
// Held to are: type (also a list of types), properties, required, additionalProperties, items, prefixItems, minItems,
// maxItems, minLength, maxLength, pattern, format, minimum, maximum, exclusiveMinimum, exclusiveMaximum, enum, const,
// anyOf, oneOf (as anyOf), allOf of one, $ref into the same schema. Properties come in the order in which the schema
// names them. Words that nobody knows mean nothing, as the standard has it.
#pragma once
#include <string>

#include "kernels/base/json.h"

namespace drover {

// The schema with its defaults spelled out: what it says nothing of is closed where the schema's word on it would be
// its own list (`properties`, `prefixItems`), and anything where it has none. With `open`, objects may have further
// properties wherever the schema does not forbid them.
// bad_data with `where`, a JSON pointer and the reason.
OrderedJson answer_schema(const OrderedJson& schema, bool open, const std::string& where);

}  // namespace drover
