// node generate.js DIR COUNT: with binaryen in DIR/node_modules, makes DIR/N.wasm of the bytes in DIR/N.seed, for N below COUNT.
// Its handle calls every export. A seed that binaryen itself makes nothing valid of gets no file.
const fs = require('fs'), path = require('path'), vm = require('vm'), {pathToFileURL} = require('url');
const [dir, count] = process.argv.slice(2);
const home = path.join(dir, 'node_modules', 'binaryen');

// The tool is a program that ends; it is run again and again here, compiled once.
const instantiate = WebAssembly.instantiate;
let compiled;
const once = async (bytes, imports) => ({instance: await instantiate(compiled ??= await WebAssembly.compile(bytes), imports)});
const tool = path.join(home, 'bin', 'wasm-opt');
const program = vm.runInThisContext('(function(Module, require, __filename, __dirname) {' + fs.readFileSync(tool, 'utf8').replace(/^#!.*/, '') + '\n})');
process.on('unhandledRejection', () => {}); // the tool's: it was told of by onAbort
const run = (...args) => new Promise(done => program({
  arguments: args, postRun: [() => { done(process.exitCode); process.exitCode = 0; }], onAbort: () => done(1), print() {}, printErr() {},
}, require, tool, path.dirname(tool)));
const features = ['mvp-features', 'enable-bulk-memory', 'enable-sign-ext', 'enable-nontrapping-float-to-int', 'enable-multivalue',
  'enable-simd', 'enable-mutable-globals', 'enable-extended-const'].map(f => '--' + f);

function drive(binaryen, file, turn) {
  const m = binaryen.readBinary(fs.readFileSync(file));
  const value = {
    [binaryen.i32]: () => m.i32.const(7), [binaryen.i64]: () => m.i64.extend_s(m.i32.const(-7)), [binaryen.f32]: () => m.f32.const(1.5),
    [binaryen.f64]: () => m.f64.const(-2.5), [binaryen.v128]: () => m.v128.const(new Array(16).fill(3)),
  };
  const calls = [];
  for (let i = 0; i < m.getNumExports(); i++) {
    const e = binaryen.getExportInfo(m.getExportByIndex((i + turn) % m.getNumExports()));
    if (e.kind !== binaryen.ExternalFunction) continue;
    const f = binaryen.getFunctionInfo(m.getFunction(e.value)), params = binaryen.expandType(f.params);
    if (!params.every(p => value[p])) continue;
    const call = m.call(e.value, params.map(p => value[p]()), f.results);
    calls.push(f.results === binaryen.none ? call : m.drop(call));
  }
  m.addFunction('drive', binaryen.none, binaryen.none, [], m.block(null, calls, binaryen.none));
  m.addFunctionExport('drive', 'handle');
  m.addMemoryExport('0', 'memory');
  fs.writeFileSync(file, m.emitBinary());
  m.dispose();
}

(async () => {
  const binaryen = (await import(pathToFileURL(path.join(home, 'index.js')))).default;
  WebAssembly.instantiate = once;
  for (let n = 0; n < count; n++) {
    const file = path.join(dir, n + '.wasm');
    const more = n % 8 === 0 ? ['--enable-reference-types'] : [];
    if (await run('-ttf', path.join(dir, n + '.seed'), '-o', file, '--remove-imports', ...features, ...more) === 0) drive(binaryen, file, n);
  }
})().catch(e => { console.error(e); process.exit(1); });
