#include "launch/openai/openapi.h"

#include <set>

#include "launch/openai/field_table.h"

namespace drover::openai {

namespace {

OrderedJson reference(const std::string& schema) { return {{"$ref", "#/components/schemas/" + schema}}; }

OrderedJson list_of(OrderedJson items, int64_t low, int64_t high) {
  return {{"type", "array"}, {"items", std::move(items)}, {"minItems", low}, {"maxItems", high}};
}

OrderedJson any_of(std::initializer_list<OrderedJson> schemas) { return {{"anyOf", OrderedJson::array_t(schemas)}}; }

OrderedJson object_schema(const FieldTable* of) { return of ? reference(of->name) : OrderedJson{{"type", "object"}}; }

OrderedJson text_schema(const Field& field) {
  OrderedJson schema{{"type", "string"}};
  if (!field.choices.empty()) {
    schema["enum"] = field.choices;
    return schema;
  }
  schema["minLength"] = field.low;
  schema["maxLength"] = field.high;
  // "-" stands last, where it is no range.
  if (!field.punctuation.empty()) schema["pattern"] = "^[A-Za-z0-9" + field.punctuation + "]*$";
  return schema;
}

OrderedJson number_schema(const Field& field) {
  return {{"type", "number"}, {"minimum", field.least}, {"maximum", field.most}};
}

OrderedJson prompt_schema(const Field& field) {
  const OrderedJson text{{"type", "string"}}, ids = list_of({{"type", "integer"}, {"minimum", 0}}, 1, INT32_MAX);
  return any_of({text, list_of(text, field.low, field.high), ids, list_of(ids, field.low, field.high)});
}

OrderedJson schema_of(const Field& field) {
  switch (field.kind) {
    case FieldKind::integer:
      return {{"type", "integer"}, {"format", "int64"}, {"minimum", field.low}, {"maximum", field.high}};
    case FieldKind::number: return number_schema(field);
    case FieldKind::boolean: return {{"type", "boolean"}};
    case FieldKind::text: return text_schema(field);
    case FieldKind::object: return object_schema(field.of);
    case FieldKind::objects: return list_of(object_schema(field.of), field.low, field.high);
    case FieldKind::texts: return any_of({text_schema(field), list_of(text_schema(field), 0, field.most_entries)});
    case FieldKind::token_ids: return list_of({{"type", "integer"}, {"minimum", 0}}, field.low, field.high);
    case FieldKind::biases:
      return {{"type", "object"}, {"additionalProperties", number_schema(field)}, {"maxProperties", field.high}};
    case FieldKind::prompt: return prompt_schema(field);
    case FieldKind::content:
      return any_of({{{"type", "string"}}, {{"type", "array"}, {"items", object_schema(field.of)}}});
    case FieldKind::choice: return any_of({text_schema(field), object_schema(field.of)});
    case FieldKind::any: return OrderedJson::object();
  }
  return {};
}

// Next to a $ref nothing else counts, so that a description stands around it.
OrderedJson property_of(const Field& field) {
  OrderedJson schema = schema_of(field);
  if (schema.contains("$ref")) schema = {{"allOf", OrderedJson::array({schema})}};
  schema["description"] = field.about;
  if (!field.required) schema["nullable"] = true;
  return schema;
}

class Schemas {
 public:
  void add(const FieldTable& table) {
    if (!known_.insert(table.name).second) return;
    OrderedJson properties = OrderedJson::object(), required = OrderedJson::array();
    for (const Field& field : table.fields) {
      properties[field.name] = property_of(field);
      if (field.required) required.push_back(field.name);
      if (field.of) add(*field.of);
    }
    OrderedJson schema{{"type", "object"}, {"properties", std::move(properties)}};
    if (!required.empty()) schema["required"] = std::move(required);
    schemas_[table.name] = std::move(schema);
  }
  OrderedJson take() { return std::move(schemas_); }

 private:
  std::set<std::string> known_;
  OrderedJson schemas_ = OrderedJson::object();
};

OrderedJson error_schema() {
  const OrderedJson text{{"type", "string"}}, nullable{{"type", "string"}, {"nullable", true}};
  const OrderedJson error{{"type", "object"},
                          {"properties", {{"message", text}, {"type", text}, {"param", nullable}, {"code", nullable}}}};
  return {{"type", "object"}, {"properties", {{"error", error}}}, {"required", {"error"}}};
}

OrderedJson responses_of(const Endpoint& endpoint) {
  OrderedJson good{{"description", "done"}};
  if (!endpoint.answer.empty()) {
    const OrderedJson schema{{"type", endpoint.answer == "application/json" ? "object" : "string"}};
    good["content"][endpoint.answer] = {{"schema", schema}};
    const Field* stream = endpoint.bodies.empty() ? nullptr : endpoint.bodies.front()->find("stream");
    if (stream) good["content"]["text/event-stream"] = {{"schema", {{"type", "string"}}}};
  }
  OrderedJson bad{{"description", "an error: what is wrong, and of which field"}};
  bad["content"]["application/json"] = {{"schema", reference("Error")}};
  return {{"200", std::move(good)}, {"default", std::move(bad)}};
}

OrderedJson operation_of(const Endpoint& endpoint) {
  OrderedJson operation{{"summary", endpoint.about}};
  if (const size_t begin = endpoint.path.find('{'); begin != endpoint.path.npos) {
    const std::string name = endpoint.path.substr(begin + 1, endpoint.path.find('}') - begin - 1);
    const OrderedJson parameter{{"name", name}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}};
    operation["parameters"] = OrderedJson::array({parameter});
  }
  if (!endpoint.bodies.empty()) {
    OrderedJson bodies = OrderedJson::array();
    for (const FieldTable* table : endpoint.bodies) bodies.push_back(reference(table->name));
    const OrderedJson schema = bodies.size() == 1 ? bodies[0] : OrderedJson{{"anyOf", bodies}};
    operation["requestBody"] = {{"required", true}, {"content", {{"application/json", {{"schema", schema}}}}}};
  }
  operation["responses"] = responses_of(endpoint);
  return operation;
}

}  // namespace

std::string openapi_json(const std::string& version) {
  OrderedJson paths = OrderedJson::object();
  Schemas schemas;
  for (const Endpoint& endpoint : endpoints()) {
    paths[endpoint.path][endpoint.method] = operation_of(endpoint);
    for (const FieldTable* table : endpoint.bodies) schemas.add(*table);
  }
  OrderedJson all = schemas.take();
  all["Error"] = error_schema();
  const OrderedJson document{{"openapi", "3.0.3"},
                             {"info", {{"title", "Drover"}, {"version", version}}},
                             {"paths", std::move(paths)},
                             {"components", {{"schemas", std::move(all)}}}};
  return document.dump();
}

}  // namespace drover::openai
