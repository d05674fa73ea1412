package api

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
)

// object is a JSON object of the OpenAPI document; encoding/json sorts its keys.
type object = map[string]any

// openAPI makes the document from the routes, so that the two cannot differ.
func openAPI(routes []*route) ([]byte, error) {
	s := schemas{known: object{}}
	paths := object{}
	for _, rt := range routes {
		item, _ := paths[rt.path()].(object)
		if item == nil {
			item = object{}
			paths[rt.path()] = item
		}
		item[strings.ToLower(rt.method)] = s.operation(rt)
	}
	s.of(reflect.TypeFor[Problem]())
	doc := object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Selvage control API", "version": "1",
			"description": "Requests that change something take an " + HeaderIdempotency + " header and are recorded in the audit trail. Every error is an application/problem+json document with a hint of what to do next.",
		},
		"paths": paths,
		"components": object{
			"schemas":         s.known,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}},
		},
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("api: make the OpenAPI document: %w", err)
	}
	return append(b, '\n'), nil
}

func (s *schemas) operation(rt *route) object {
	op := object{
		"operationId": rt.name, "summary": rt.summary, "parameters": s.parameters(rt),
		"responses": object{
			strconv.Itoa(rt.status): s.answer(rt),
			"default":               object{"description": "a problem", "content": object{problemMedia: object{"schema": ref("Problem")}}},
		},
	}
	if rt.who == aToken {
		op["security"] = []object{{"token": []string{string(rt.scope)}}}
		op["x-scope"] = rt.scope
	}
	switch {
	case rt.in != nil:
		op["requestBody"] = object{"content": object{"application/json": object{"schema": s.of(reflect.TypeOf(rt.in))}}}
	case rt.raw != "":
		op["requestBody"] = object{"description": rt.raw, "required": true, "content": object{"application/octet-stream": object{}}}
	}
	if rt.limit > 0 {
		op["x-max-body-bytes"] = rt.limit
	}
	return op
}

func (s *schemas) parameters(rt *route) []object {
	out := []object{}
	text := object{"type": "string"}
	for _, name := range wildcards(rt.pattern) {
		out = append(out, object{"name": name, "in": "path", "required": true, "schema": text})
	}
	for _, p := range rt.query {
		out = append(out, object{"name": p.name, "in": "query", "description": p.about, "schema": text})
	}
	for _, p := range rt.header {
		out = append(out, object{"name": p.name, "in": "header", "description": p.about, "schema": text})
	}
	if rt.mutates && !rt.secret {
		out = append(out, object{"name": HeaderIdempotency, "in": "header", "description": "repeat a request with its key, and it is done once", "schema": text})
	}
	return out
}

func (s *schemas) answer(rt *route) object {
	if rt.event != nil {
		return object{"description": rt.rawOut, "content": object{"application/x-ndjson": object{"schema": s.of(reflect.TypeOf(rt.event))}}}
	}
	if rt.out == nil {
		return object{"description": rt.rawOut, "content": object{"application/octet-stream": object{}}}
	}
	return object{"description": "done", "content": object{"application/json": object{"schema": s.of(reflect.TypeOf(rt.out))}}}
}

// schemas describes Go types as encoding/json writes them.
type schemas struct{ known object }

func ref(name string) object { return object{"$ref": "#/components/schemas/" + name} }

var (
	textType = reflect.TypeFor[encoding.TextMarshaler]()
	timeType = reflect.TypeFor[time.Time]()
	durType  = reflect.TypeFor[time.Duration]()
	sigType  = reflect.TypeFor[identity.Envelope]()
)

func (s *schemas) of(t reflect.Type) object {
	switch {
	case t == timeType:
		return object{"type": "string", "format": "date-time"}
	case t == durType:
		return object{"type": "integer", "description": "nanoseconds"}
	case t == sigType || t.Implements(textType):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		return s.structure(t)
	}
	return object{"type": "integer"}
}

// structure describes a struct once, under its name.
func (s *schemas) structure(t reflect.Type) object {
	name := t.Name()
	if !strings.HasSuffix(t.PkgPath(), "control/api") {
		pkg := t.PkgPath()[strings.LastIndexByte(t.PkgPath(), '/')+1:]
		name = strings.ToUpper(pkg[:1]) + pkg[1:] + name
	}
	if _, ok := s.known[name]; ok {
		return ref(name)
	}
	properties, required := object{}, []string{}
	s.known[name] = object{"type": "object", "properties": properties}
	s.fields(t, properties, &required)
	if len(required) > 0 {
		s.known[name].(object)["required"] = required
	}
	return ref(name)
}

func (s *schemas) fields(t reflect.Type, properties object, required *[]string) {
	for f := range fields(t) {
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && tag == "":
			s.fields(f.Type, properties, required)
			continue
		case tag == "-" || !f.IsExported():
			continue
		case tag == "":
			tag = f.Name
		}
		properties[tag] = s.of(f.Type)
		if !strings.Contains(options, "omit") {
			*required = append(*required, tag)
		}
	}
}

func fields(t reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}
