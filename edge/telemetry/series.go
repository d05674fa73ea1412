package telemetry

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

const namespace = "selvage"

// other names the functions beyond the bound, and none those exchanges that
// reached no function.
const (
	other = "other"
	none  = ""
)

// series are the metrics of exchanges. Label values come from closed sets, but
// for project and function, which are bounded: no client can make a series.
type series struct {
	requests *prometheus.CounterVec // project, function, protocol, status class
	faults   *prometheus.CounterVec // project, function, kind
	refused  *prometheus.CounterVec // reason
	duration *prometheus.HistogramVec
	bytesIn  *prometheus.CounterVec
	bytesOut *prometheus.CounterVec
	cpu      *prometheus.CounterVec
	memory   *prometheus.HistogramVec
	calls    *prometheus.CounterVec
	no       *prometheus.CounterVec // project, function, refusal

	most int
	mu   struct {
		sync.RWMutex
		functions map[function.ID]*functionSeries
	}
}

// functionSeries are one function's, looked up once.
type functionSeries struct {
	id       function.ID
	requests [protocols][classes]atomic.Pointer[prometheus.Counter] // nil until the first
	duration prometheus.Observer
	bytesIn  prometheus.Counter
	bytesOut prometheus.Counter
	cpu      prometheus.Counter
	memory   prometheus.Observer
	calls    prometheus.Counter
}

// The closed sets: HTTP/1, 2, 3 and anything else; no status, 1xx to 5xx.
const (
	protocols = 4
	classes   = 6
)

var (
	protocolNames = [protocols]string{"h1", "h2", "h3", other}
	classNames    = [classes]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}
	// From what the node answers by itself to the longest wall limit.
	seconds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
)

func newSeries(r prometheus.Registerer, said *metricList, pop string, most int) *series {
	labels := prometheus.Labels{"pop": pop}
	counter := func(name, help string, by ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help, ConstLabels: labels}, by)
		r.MustRegister(c)
		said.add(Metric{namespace + "_" + name, "counter", append(by, "pop"), help})
		return c
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, ConstLabels: labels,
			Buckets: buckets}, []string{"project", "function"})
		r.MustRegister(h)
		said.add(Metric{namespace + "_" + name, "histogram", []string{"project", "function", "pop"}, help})
		return h
	}
	s := &series{
		most:     most,
		requests: counter("requests_total", "Finished exchanges.", "project", "function", "protocol", "status"),
		faults:   counter("faults_total", "Failed invocations by kind of fault.", "project", "function", "fault"),
		refused:  counter("refused_total", "Exchanges that the node answered by itself, by reason.", "reason"),
		duration: histogram("request_duration_seconds", "From the request's head to the response's end.", seconds),
		bytesIn:  counter("request_bytes_total", "Request body bytes read.", "project", "function"),
		bytesOut: counter("response_bytes_total", "Response body bytes written.", "project", "function"),
		cpu:      counter("cpu_seconds_total", "Processor time of invocations.", "project", "function"),
		memory: histogram("memory_peak_bytes", "Peak linear memory of an invocation.",
			prometheus.ExponentialBuckets(1<<20, 2, 11)), // 1 MiB to 1 GiB
		calls: counter("host_calls_total", "Host calls of invocations.", "project", "function"),
		no:    counter("refused_calls_total", "Host calls that were refused, and log records dropped, by kind of refusal.", "project", "function", "refusal"),
	}
	s.mu.functions = map[function.ID]*functionSeries{}
	return s
}

func (s *series) observe(r *Record) {
	f := s.of(function.ID{Project: r.Project, Name: r.Function})
	s.request(f, protocolOf(r.Protocol), classOf(r.Status)).Inc()
	f.duration.Observe(r.Duration.Seconds())
	if r.BytesIn > 0 {
		f.bytesIn.Add(float64(r.BytesIn))
	}
	f.bytesOut.Add(float64(r.BytesOut))
	if r.Usage.MemoryBytes > 0 {
		f.cpu.Add(r.Usage.CPU.Seconds())
		f.memory.Observe(float64(r.Usage.MemoryBytes))
		f.calls.Add(float64(r.Usage.HostCalls))
	}
	for _, t := range r.Usage.Refused {
		s.no.WithLabelValues(f.id.Project, f.id.Name, t.Refusal.String()).Add(float64(t.Count))
	}
	if r.Fault != nil {
		s.faults.WithLabelValues(f.id.Project, f.id.Name, kindOf(r.Fault)).Inc()
	}
	if r.Refused != "" {
		s.refused.WithLabelValues(r.Refused).Inc()
	}
}

var allKinds = fault.Kinds()

// kindOf keeps a kind that nobody knows from making a series.
func kindOf(e *fault.Error) string {
	if !slices.Contains(allKinds, e.Kind) {
		return fault.Internal.String()
	}
	return e.Kind.String()
}

// of returns the function's own series, or the shared ones beyond the bound.
func (s *series) of(id function.ID) *functionSeries {
	s.mu.RLock()
	f := s.mu.functions[id]
	s.mu.RUnlock()
	if f != nil {
		return f
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f = s.mu.functions[id]; f != nil {
		return f
	}
	if id.Name != none && len(s.mu.functions) >= s.most {
		id = function.ID{Project: other, Name: other}
		if f = s.mu.functions[id]; f != nil {
			return f
		}
	}
	f = s.open(id)
	s.mu.functions[id] = f
	return f
}

func (s *series) open(id function.ID) *functionSeries {
	p, n := id.Project, id.Name
	return &functionSeries{
		id:       id,
		duration: s.duration.WithLabelValues(p, n),
		bytesIn:  s.bytesIn.WithLabelValues(p, n),
		bytesOut: s.bytesOut.WithLabelValues(p, n),
		cpu:      s.cpu.WithLabelValues(p, n),
		memory:   s.memory.WithLabelValues(p, n),
		calls:    s.calls.WithLabelValues(p, n),
	}
}

// request finds a counter; it makes it when it is first needed, so that a
// function has no series for what never happened to it.
func (s *series) request(f *functionSeries, protocol, class int) prometheus.Counter {
	if c := f.requests[protocol][class].Load(); c != nil {
		return *c
	}
	c := s.requests.WithLabelValues(f.id.Project, f.id.Name, protocolNames[protocol], classNames[class])
	f.requests[protocol][class].Store(&c)
	return c
}

func protocolOf(proto string) int {
	if len(proto) > 5 {
		if v, err := strconv.Atoi(proto[5:6]); err == nil && v >= 1 && v <= 3 {
			return v - 1
		}
	}
	return protocols - 1
}

func classOf(status int) int {
	return min(max(status/100, 0), classes-1)
}
