package abi_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sameInSDK are the constants that the Go SDK, a module of its own, repeats
// under another name.
var sameInSDK = map[string]string{
	"StatusInvalid":     "ErrInvalid",
	"StatusNotFound":    "ErrNotFound",
	"StatusDenied":      "ErrDenied",
	"StatusConflict":    "ErrConflict",
	"StatusTooSmall":    "ErrTooSmall",
	"StatusTooLarge":    "ErrTooLarge",
	"StatusUnavailable": "ErrUnavailable",
	"StatusLimit":       "ErrLimit",
	"StatusClosed":      "ErrClosed",
	"StatusState":       "ErrState",
	"StatusInternal":    "ErrInternal",
	"MetaRequestID":     "metaRequestID",
	"MetaClient":        "metaClient",
	"MetaPoP":           "metaPoP",
	"MetaNode":          "metaNode",
	"MetaRegion":        "metaRegion",
	"MetaProject":       "metaProject",
	"MetaFunction":      "metaFunction",
	"MetaVersion":       "metaVersion",
	"MetaCountry":       "metaCountry",
	"MetaSubdivision":   "metaSubdivision",
	"MetaCity":          "metaCity",
	"MetaLatitude":      "metaLatitude",
	"MetaLongitude":     "metaLongitude",
	"MetaTimeZone":      "metaTimeZone",
	"MetaASN":           "metaASN",
	"MetaOrganization":  "metaOrganization",
	"MetaEU":            "metaEU",
	"MetaAssumed":       "metaAssumed",
	"FlagBody":          "flagBody",
	"KVEntrySize":       "kvEntrySize",
	"ReadAny":           "readAny",
	"ReadStrong":        "readStrong",
	"MaxReadKeys":       "maxReadKeys",
	"WaitExchange":      "waitExchange",
	"WaitRead":          "waitRead",
	"WaitWrite":         "waitWrite",
	"WaitHead":          "waitHead",
	"MaxAsks":           "maxAsks",
	"MaxWaits":          "maxWaits",
	"WaitSize":          "waitSize",
	"WaitBytes":         "waitBytes",
}

// notInSDK are the constants it has no use for: Go's runtime asks WASI for time
// and chance, success is not an error, the compiler exports the memory, and wait
// is more than fetch_wait, kv_keys than kv_list and kv_write than kv_put.
var notInSDK = []string{"StatusOK", "CallClockNow", "CallSleep", "CallRandom", "CallFetchWait", "CallKVList", "CallKVPut", "ExportMemory", "ExportInitialize"}

func TestGoSDKHasTheSameConstants(t *testing.T) {
	contract, sdk := constants(t, "."), constants(t, "../go")
	directives := importsAndExports(t, "../go")
	for name, want := range contract {
		twin, repeated := sameInSDK[name]
		switch {
		case slices.Contains(notInSDK, name):
		case repeated:
			if got, ok := sdk[twin]; !ok || got != want {
				t.Errorf("%s is %s; the SDK's %s is %q", name, want, twin, got)
			}
		case strings.HasPrefix(name, "Call"):
			if call := fmt.Sprintf("wasmimport %s %s", contract["Module"], want); !directives[call] {
				t.Errorf("the SDK has no //go:%s", call)
			}
		case strings.HasPrefix(name, "Export"):
			if !directives["wasmexport "+want] {
				t.Errorf("the SDK has no //go:wasmexport %s", want)
			}
		case name != "Module":
			t.Errorf("%s: say in this test what it is called in the SDK", name)
		}
	}
}

// TestGoSDKCallsAsDeclared compares the parameters of each import with the
// signature that stands beside the call's name.
func TestGoSDKCallsAsDeclared(t *testing.T) {
	source, err := os.ReadFile("abi.go")
	if err != nil {
		t.Fatal(err)
	}
	for name, params := range sdkCalls(t, "../go/imports_wasip1.go") {
		signature := regexp.MustCompile(`// ` + name + `\(([^)]*)\)`).FindSubmatch(source)
		if signature == nil {
			t.Errorf("%s: no signature in abi.go", name)
			continue
		}
		if want := len(strings.FieldsFunc(string(signature[1]), func(r rune) bool { return r == ',' })); want != params {
			t.Errorf("%s has %d parameters; the SDK passes %d", name, want, params)
		}
	}
}

// constants returns the values of dir's constants, ignoring build constraints.
func constants(t *testing.T, dir string) map[string]string {
	t.Helper()
	fset := token.NewFileSet()
	files := parse(t, fset, dir)
	config := types.Config{Error: func(error) {}, Importer: nothing{}}
	pkg, _ := config.Check(dir, fset, files, nil) // imports are missing; constants are not
	values := map[string]string{}
	for _, name := range pkg.Scope().Names() {
		if c, ok := pkg.Scope().Lookup(name).(*types.Const); ok && c.Val().Kind() != constant.Unknown {
			values[name] = c.Val().ExactString()
			if c.Val().Kind() == constant.String {
				values[name] = constant.StringVal(c.Val())
			}
		}
	}
	return values
}

// nothing imports nothing: the constants need no other package.
type nothing struct{}

func (nothing) Import(path string) (*types.Package, error) {
	return nil, errors.New("not needed")
}

func importsAndExports(t *testing.T, dir string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, f := range parse(t, token.NewFileSet(), dir) {
		for _, group := range f.Comments {
			for _, c := range group.List {
				if directive, ok := strings.CutPrefix(c.Text, "//go:"); ok {
					found[directive] = true
				}
			}
		}
	}
	return found
}

// sdkCalls returns how many parameters each import is declared with.
func sdkCalls(t *testing.T, file string) map[string]int {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body != nil || fn.Doc == nil {
			continue
		}
		for _, c := range fn.Doc.List {
			if words := strings.Fields(c.Text); words[0] == "//go:wasmimport" {
				calls[words[2]] = fn.Type.Params.NumFields()
			}
		}
	}
	if len(calls) == 0 {
		t.Fatalf("%s declares no imports", file)
	}
	return calls
}

func parse(t *testing.T, fset *token.FileSet, dir string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: no Go files: %v", dir, err)
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}
