//! The document as generators of clients want it: an envelope refers to what it holds instead of repeating it, and
//! an object without declared members says that it may have any.

use serde_json::{Value, json};

/// Where schemas are.
const SCHEMAS: &str = "#/components/schemas/";

/// Tidies a document.
pub(super) fn tidy(mut document: Value) -> Value {
    let Some(schemas) = document["components"]["schemas"].as_object_mut() else { return document };
    let names: Vec<String> = schemas.keys().cloned().collect();
    for (name, schema) in schemas.iter_mut() {
        let Some(held) = name.strip_prefix("Envelope_") else { continue };
        let Some(data) = schema.pointer_mut("/properties/data") else { continue };
        let is_known = |name: &str| names.iter().any(|known| known == name);
        if is_known(held) {
            *data = json!({"$ref": format!("{SCHEMAS}{held}")});
        } else if let Some(held) = held.strip_prefix("Vec_").filter(|held| is_known(held)) {
            data["items"] = json!({"$ref": format!("{SCHEMAS}{held}")});
        }
    }
    schemas.values_mut().for_each(open_objects);
    document
}

fn open_objects(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let is_object = members.get("type").is_some_and(|kind| {
                kind == "object"
                    || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "object"))
            });
            if is_object && !members.contains_key("properties") {
                members.entry("additionalProperties").or_insert(true.into());
            }
            let below = members.iter_mut().filter(|(name, _)| *name != "example");
            below.for_each(|(_, value)| open_objects(value));
        }
        Value::Array(items) => items.iter_mut().for_each(open_objects),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_refer_and_free_objects_are_open() {
        let document = json!({"components": {"schemas": {
            "A": {"type": "object", "properties": {"x": {"type": ["object", "null"]}}, "example": {"type": "object"}},
            "Envelope_A": {"properties": {"data": {"type": "object", "properties": {}}}},
            "Envelope_Vec_A": {"properties": {"data": {"type": "array", "items": {}, "description": "d"}}},
            "Envelope_bool": {"properties": {"data": {"type": "boolean"}}},
        }}});
        let tidied = tidy(document);
        let schemas = &tidied["components"]["schemas"];
        let reference = json!({"$ref": "#/components/schemas/A"});
        assert_eq!(schemas["Envelope_A"]["properties"]["data"], reference);
        let list = &schemas["Envelope_Vec_A"]["properties"]["data"];
        assert_eq!((&list["items"], &list["description"]), (&reference, &json!("d")));
        assert_eq!(schemas["Envelope_bool"]["properties"]["data"]["type"], "boolean");
        assert_eq!(schemas["A"]["properties"]["x"]["additionalProperties"], true);
        assert_eq!(schemas["A"]["example"], json!({"type": "object"}));
    }
}
