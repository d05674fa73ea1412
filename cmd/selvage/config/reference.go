package config

import (
	"fmt"
	"io"
	"reflect"
)

// WriteReference writes a table of the keys of v (Edge or Control): key, default
// and meaning, read from the struct itself.
func WriteReference(w io.Writer, v any) {
	fmt.Fprintf(w, "| key | default | meaning |\n|---|---|---|\n")
	writeKeys(w, "", reflect.TypeOf(v))
}

func writeKeys(w io.Writer, prefix string, t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		key := prefix + f.Tag.Get("toml")
		switch {
		case f.Type.Kind() == reflect.Struct:
			writeKeys(w, key+".", f.Type)
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
			fmt.Fprintf(w, "| `%s` | | %s |\n", key, f.Tag.Get("doc"))
			writeKeys(w, key+"[].", f.Type.Elem())
		default:
			def, ok := f.Tag.Lookup("default")
			switch {
			case !ok:
				def = "(required)"
			case def == "":
				def = "(empty)"
			default:
				def = "`" + def + "`"
			}
			fmt.Fprintf(w, "| `%s` | %s | %s |\n", key, def, f.Tag.Get("doc"))
		}
	}
}
