package scan

import (
	"slices"
	"strings"
)

// walker is one walk over one module.
type walker struct {
	r       reader
	report  Report
	allowed []Func

	types     []functype
	functions []uint32 // type of each, imports first
	imported  int      // functions
	bodies    int
	dataCount int // -1: no such section
	lastRank  int
	customs   int
	touches   map[string]bool
	exported  map[string]Export
	exportOf  map[string]uint32 // function index of exported functions
	unknown   []string          // imports that are not allowed, with what to do
}

type functype struct{ params, results []byte }

// ranks orders the sections; index is the section's number. Custom ones have none.
var ranks = [...]int{1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 7, 7: 8, 8: 9, 9: 10, 10: 12, 11: 13, 12: 11, 13: 6}

func (w *walker) sections() {
	w.dataCount, w.touches = -1, map[string]bool{}
	w.exported, w.exportOf = map[string]Export{}, map[string]uint32{}
	for w.r.err == nil && w.r.left() > 0 {
		id := w.r.byte()
		size := int(w.r.u32())
		if size > w.r.left() {
			w.r.broken("a section is longer than the module")
			return
		}
		w.inOrder(id)
		w.r.end = w.r.at + size
		w.section(id)
		if w.r.err == nil && w.r.at != w.r.end {
			w.r.broken("a section has bytes left over")
		}
		w.r.end = 0
	}
}

func (w *walker) inOrder(id byte) {
	if id == 0 {
		if w.customs++; w.customs > MaxCustom {
			w.r.fail(ErrLimit, "it has more than %d custom sections", MaxCustom)
		}
		return
	}
	if int(id) >= len(ranks) {
		w.r.broken("an unknown section")
		return
	}
	if ranks[id] <= w.lastRank {
		w.r.broken("a section out of order")
	}
	w.lastRank = ranks[id]
}

func (w *walker) section(id byte) {
	switch id {
	case 0:
		w.custom()
	case 1:
		w.typeSection()
	case 2:
		w.importSection()
	case 3:
		w.functionSection()
	case 4:
		w.tableSection()
	case 5:
		w.memorySection()
	case 6:
		w.globalSection()
	case 7:
		w.exportSection()
	case 8:
		w.report.Start = true
		if int(w.r.u32()) >= len(w.functions) {
			w.r.broken("the start function does not exist")
		}
	case 9:
		w.elementSection()
	case 10:
		w.codeSection()
	case 11:
		w.dataSection()
	case 12:
		w.dataCount = int(w.r.u32())
	case 13:
		w.feature("exceptions", "build without -fwasm-exceptions")
	}
}

func (w *walker) feature(name, instead string) {
	w.r.fail(ErrFeature, "%s; %s", name, instead)
}

func (w *walker) custom() {
	size := int(w.r.u32())
	name := string(w.r.bytes(size))
	if name == "producers" {
		w.producers()
	}
	if w.r.err == nil {
		w.r.at = w.r.limit()
	}
}

// producers notes who made the module; it is only for people, so what is odd
// in it is passed over.
func (w *walker) producers() {
	p := reader{b: w.r.b, at: w.r.at, end: w.r.limit()}
	for i, n := 0, p.count(16, "producers"); p.more(i, n); i++ {
		field := p.name()
		for j, m := 0, p.count(64, "producers"); p.more(j, m); j++ {
			who := strings.Join([]string{field, p.name(), p.name()}, " ")
			if p.err == nil && len(w.report.Producers) < 16 {
				w.report.Producers = append(w.report.Producers, strings.TrimSpace(who))
			}
		}
	}
}

func (w *walker) typeSection() {
	n := w.r.count(MaxTypes, "types")
	w.report.Types = n
	for i := 0; w.r.more(i, n); i++ {
		switch form := w.r.byte(); form {
		case 0x60:
		case 0x5d:
			w.feature("stack switching", "build without it")
			return
		default:
			w.feature("garbage-collected types", "build without the GC proposal")
			return
		}
		w.types = append(w.types, functype{w.valtypes(), w.valtypes()})
	}
}

func (w *walker) valtypes() []byte {
	n := w.r.count(MaxParams, "parameters of one type")
	b := w.r.bytes(n)
	for _, t := range b {
		w.valtype(t)
	}
	return b
}

func (w *walker) valtype(t byte) {
	switch t {
	case 0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f:
	default:
		w.feature("typed references", "build without the function-references and GC proposals")
	}
}

func (w *walker) importSection() {
	n := w.r.count(MaxImports, "imports")
	known := make(map[Import]*Func, len(w.allowed))
	for i := range w.allowed {
		known[Import{w.allowed[i].Module, w.allowed[i].Name}] = &w.allowed[i]
	}
	for i := 0; w.r.more(i, n); i++ {
		im := Import{w.r.name(), w.r.name()}
		kind := w.r.byte()
		if w.r.err != nil {
			return
		}
		w.report.Imports = append(w.report.Imports, im)
		if kind != 0 {
			w.importedThing(im, kind)
			continue
		}
		t := w.r.u32()
		w.functions = append(w.functions, t)
		w.imported++
		w.checkImport(im, w.typeAt(t), known[im])
	}
}

// importedThing refuses what is not a function; it reads over it so that all
// that is wrong with the imports is said at once.
func (w *walker) importedThing(im Import, kind byte) {
	switch kind {
	case 1:
		w.r.byte()
		w.bounds()
		w.unknown = append(w.unknown, im.Module+"."+im.Name+" is a table: define and keep it in the module (no --import-table)")
	case 2:
		w.bounds()
		w.unknown = append(w.unknown, im.Module+"."+im.Name+" is a memory: define and export it instead (no --import-memory)")
	case 3:
		w.valtype(w.r.byte())
		w.r.byte()
		w.unknown = append(w.unknown, im.Module+"."+im.Name+" is a global: define it in the module")
	case 4:
		w.feature("exceptions", "build without -fwasm-exceptions")
	default:
		w.r.broken("an unknown kind of import")
	}
}

func (w *walker) typeAt(i uint32) functype {
	if int(i) >= len(w.types) {
		w.r.broken("a type that does not exist")
		return functype{}
	}
	return w.types[i]
}

func (w *walker) functionSection() {
	n := w.r.count(MaxFunctions, "functions")
	w.report.Functions = n
	for i := 0; w.r.more(i, n); i++ {
		t := w.r.u32()
		w.typeAt(t)
		w.functions = append(w.functions, t)
	}
}

// bounds reads the limits of a table or memory and refuses kinds that are off.
func (w *walker) bounds() (least, most uint64, bounded bool) {
	flags := w.r.byte()
	switch {
	case flags&^7 != 0:
		w.feature("custom page sizes", "build for pages of 64 KiB")
	case flags&4 != 0:
		w.feature("64-bit memories and tables", "build for wasm32")
	case flags&2 != 0:
		w.feature("threads", "build without -pthread and shared memory")
	}
	least = uint64(w.r.u32())
	if flags&1 != 0 {
		most, bounded = uint64(w.r.u32()), true
	}
	return least, most, bounded
}

func (w *walker) tableSection() {
	n := w.r.count(MaxTables, "tables")
	for i := 0; w.r.more(i, n); i++ {
		if t := w.r.byte(); t == 0x40 {
			w.feature("tables with an initial value", "build without the function-references proposal")
		} else {
			w.valtype(t)
		}
		least, _, _ := w.bounds()
		if least > MaxElements {
			w.r.fail(ErrLimit, "a table has %d elements; at most %d are taken", least, MaxElements)
		}
	}
}

func (w *walker) memorySection() {
	n := w.r.count(MaxMemories, "memories")
	for i := 0; w.r.more(i, n); i++ {
		least, most, bounded := w.bounds()
		if least > 65536 || most > 65536 {
			w.r.broken("a memory is larger than 4 GiB")
		}
		if bounded && most < least {
			w.r.broken("a memory's maximum is below its minimum")
		}
		w.report.MinPages, w.report.MaxPages = least, most
	}
}

func (w *walker) globalSection() {
	n := w.r.count(MaxGlobals, "globals")
	w.report.Globals = n
	for i := 0; w.r.more(i, n); i++ {
		w.valtype(w.r.byte())
		if w.r.byte() > 1 {
			w.feature("shared globals", "build without the threads proposals")
		}
		w.constant()
	}
}

var exportKinds = [...]string{"func", "table", "memory", "global"}

func (w *walker) exportSection() {
	n := w.r.count(MaxExports, "exports")
	for i := 0; w.r.more(i, n); i++ {
		name, kind, index := w.r.name(), w.r.byte(), w.r.u32()
		if w.r.err != nil {
			return
		}
		if int(kind) >= len(exportKinds) {
			w.feature("exceptions", "build without -fwasm-exceptions")
			return
		}
		w.addExport(Export{name, exportKinds[kind]}, index)
	}
}

func (w *walker) addExport(e Export, index uint32) {
	if _, twice := w.exported[e.Name]; twice {
		w.r.broken("two exports have the same name")
		return
	}
	if strings.HasPrefix(e.Name, reserved) {
		w.r.fail(ErrExport, "the names that begin with %q are the platform's: rename %q", reserved, e.Name)
	}
	if e.Kind == "func" {
		if int(index) >= len(w.functions) {
			w.r.broken("an export of a function that does not exist")
		}
		w.exportOf[e.Name] = index
	}
	w.exported[e.Name] = e
	w.report.Exports = append(w.report.Exports, e)
}

// elementSection reads all eight forms of an element segment.
func (w *walker) elementSection() {
	n := w.r.count(MaxElements, "element segments")
	for i := 0; w.r.more(i, n); i++ {
		flags := w.r.u32()
		if flags > 7 {
			w.r.broken("an unknown kind of element segment")
			return
		}
		active, explicit, expressions := flags&1 == 0, flags&2 != 0, flags&4 != 0
		if active && explicit {
			w.r.u32() // the table
		}
		if active {
			w.constant()
		}
		if explicit || !active {
			if t := w.r.byte(); expressions {
				w.valtype(t)
			} else if t != 0 {
				w.r.broken("an unknown kind of element")
			}
		}
		w.elements(expressions)
	}
}

func (w *walker) elements(expressions bool) {
	n := w.r.count(MaxElements, "elements")
	if w.report.Elements += n; w.report.Elements > MaxElements {
		w.r.fail(ErrLimit, "it has %d elements; at most %d are taken", w.report.Elements, MaxElements)
	}
	for i := 0; w.r.more(i, n); i++ {
		if expressions {
			w.constant()
		} else {
			w.r.u32()
		}
	}
}

func (w *walker) codeSection() {
	begin := w.r.at
	n := w.r.count(MaxFunctions, "functions")
	if n != w.report.Functions {
		w.r.broken("functions and bodies differ in number")
	}
	section := w.r.end
	for i := 0; w.r.more(i, n); i++ {
		size := int(w.r.u32())
		if size > MaxBody {
			w.r.fail(ErrLimit, "function %d has %d bytes of code; at most %d are taken: split it up", w.imported+i, size, MaxBody)
		}
		if size > w.r.left() {
			w.r.broken("a function is longer than the code")
			return
		}
		w.report.LargestBody = max(w.report.LargestBody, size)
		w.r.end = w.r.at + size
		w.body(w.imported + i)
		w.r.end = section
	}
	w.bodies, w.report.CodeBytes = n, w.r.at-begin
}

func (w *walker) dataSection() {
	n := w.r.count(MaxSegments, "data segments")
	w.report.Segments = n
	if w.dataCount >= 0 && w.dataCount != n {
		w.r.broken("the number of data segments is not what was announced")
	}
	for i := 0; w.r.more(i, n); i++ {
		switch flags := w.r.u32(); flags {
		case 0:
			w.constant()
		case 1:
		case 2:
			if w.r.u32() != 0 {
				w.feature("several memories", "build for one memory")
			}
			w.constant()
		default:
			w.r.broken("an unknown kind of data segment")
		}
		w.r.sized()
	}
}

func (w *walker) finish() {
	if w.r.err == nil && w.bodies != w.report.Functions {
		w.r.broken("functions and bodies differ in number")
	}
	for name := range w.touches {
		w.report.Touches = append(w.report.Touches, name)
	}
	slices.Sort(w.report.Touches)
}
