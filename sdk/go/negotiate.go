package edge

import (
	"net/http"
	"strconv"
	"strings"
)

// maxRanges bounds the ranges of one Accept-Language that are looked at.
const maxRanges = 64

// Language returns which of the offered languages (tags such as "de" or "pt-BR",
// in the order of your preference) suits the request's Accept-Language best, and
// "" if none does; the first one where the client does not say. Each offer gets
// the weight of the longest range that it begins with (RFC 4647 §3.3.1, RFC 9110
// §12.5.4); where none of them begins so, a range is shortened from its end until
// one does (lookup, RFC 4647 §3.4): de-CH gets de. Put Accept-Language into Vary.
func Language(r *http.Request, offered ...string) string {
	header := strings.Join(r.Header.Values("Accept-Language"), ",")
	if len(offered) == 0 {
		return ""
	}
	ranges := parseRanges(header)
	if len(ranges) == 0 {
		return offered[0]
	}
	best, most := "", 0
	for _, tag := range offered {
		if w := weightOf(tag, ranges); w > most {
			best, most = tag, w
		}
	}
	if best != "" {
		return best
	}
	return lookUp(ranges, offered)
}

// languageRange is one of a header, with its weight in thousandths.
type languageRange struct {
	tag    string
	weight int
}

func parseRanges(header string) (all []languageRange) {
	for part := range strings.SplitSeq(header, ",") {
		if len(all) == maxRanges {
			return all
		}
		tag, params, _ := strings.Cut(part, ";")
		if tag = strings.TrimSpace(tag); tag == "" {
			continue
		}
		weight, ok := parseWeight(params)
		if !ok {
			continue
		}
		all = append(all, languageRange{tag, weight})
	}
	return all
}

// parseWeight reads q=0.5 (RFC 9110 §12.4.2); without one it is 1.
func parseWeight(params string) (thousandths int, ok bool) {
	params = strings.TrimSpace(params)
	if params == "" {
		return 1000, true
	}
	name, value, _ := strings.Cut(params, "=")
	if !strings.EqualFold(strings.TrimSpace(name), "q") {
		return 0, false
	}
	value = strings.TrimSpace(value)
	q, err := strconv.ParseFloat(value, 64)
	if err != nil || len(value) > 5 || !(q >= 0 && q <= 1) {
		return 0, false
	}
	return int(q*1000 + .5), true
}

// weightOf is the weight of the longest range that tag begins with; 0: not wanted, or not said.
func weightOf(tag string, ranges []languageRange) (weight int) {
	longest := -1
	for _, r := range ranges {
		n := len(r.tag)
		if r.tag == "*" {
			n = 0
		} else if !beginsWith(tag, r.tag) {
			continue
		}
		if n > longest {
			longest, weight = n, r.weight
		}
	}
	return weight
}

// beginsWith reports whether tag is prefix, or it and further subtags.
func beginsWith(tag, prefix string) bool {
	return len(tag) >= len(prefix) && strings.EqualFold(tag[:len(prefix)], prefix) && (len(tag) == len(prefix) || tag[len(prefix)] == '-')
}

// lookUp shortens ranges, the most wanted first, until one is an offer that is not refused.
func lookUp(ranges []languageRange, offered []string) string {
	best, most := "", 0
	for _, r := range ranges {
		if r.weight <= most {
			continue
		}
		for short := r.tag; short != ""; short = shorten(short) {
			if tag := find(short, offered); tag != "" && !refused(tag, ranges) {
				best, most = tag, r.weight
				break
			}
		}
	}
	return best
}

func find(tag string, offered []string) string {
	for _, o := range offered {
		if strings.EqualFold(o, tag) {
			return o
		}
	}
	return ""
}

// refused reports whether a range of weight 0 names the tag itself.
func refused(tag string, ranges []languageRange) bool {
	for _, r := range ranges {
		if r.weight == 0 && strings.EqualFold(r.tag, tag) {
			return true
		}
	}
	return false
}

// shorten takes the last subtag off, and a single letter before it (RFC 4647 §3.4).
func shorten(tag string) string {
	i := strings.LastIndexByte(tag, '-')
	if i < 0 {
		return ""
	}
	tag = tag[:i]
	if len(tag) >= 2 && tag[len(tag)-2] == '-' {
		return tag[:len(tag)-2]
	}
	return tag
}

// Device is a class of devices.
type Device string

// The classes.
const (
	Desktop Device = "desktop"
	Mobile  Device = "mobile"
	Tablet  Device = "tablet"
	TV      Device = "tv"
	Bot     Device = "bot"
	Unknown Device = "unknown"
)

// DeviceOf says what device a request seems to come from: by its client hints
// (Sec-CH-UA-Form-Factors, Sec-CH-UA-Mobile), else by its User-Agent. It is a
// hint that anybody can forge: choose a layout by it, never a right. Put what you
// use into Vary.
func DeviceOf(r *http.Request) Device {
	agent := r.Header.Get("User-Agent")
	if isBot(agent) {
		return Bot
	}
	factors := r.Header.Get("Sec-CH-UA-Form-Factors")
	switch {
	case strings.Contains(factors, `"Tablet"`):
		return Tablet
	case strings.Contains(factors, `"Mobile"`):
		return Mobile
	case strings.Contains(factors, `"Desktop"`):
		return Desktop
	}
	switch byAgent := deviceByAgent(agent); {
	case r.Header.Get("Sec-CH-UA-Mobile") == "?1" && byAgent != Tablet:
		return Mobile
	case r.Header.Get("Sec-CH-UA-Mobile") == "?0" && (byAgent == Mobile || byAgent == Unknown):
		return Desktop
	default:
		return byAgent
	}
}

// agents are looked for in a User-Agent, in this order.
var agents = []struct {
	device Device
	words  []string
}{
	{TV, []string{"SmartTV", "SMART-TV", "AppleTV", "Apple TV", "GoogleTV", "BRAVIA", "HbbTV", "Web0S", "Roku", "AFTT", "AFTM", "AFTS"}},
	{Tablet, []string{"iPad", "Tablet", "PlayBook", "Silk/", "Kindle"}},
	{Mobile, []string{"iPhone", "iPod", "Windows Phone", "Mobile", "Mobi"}},
	{Tablet, []string{"Android"}}, // Android says Mobile on phones only
	{Desktop, []string{"Windows NT", "Macintosh", "X11", "CrOS", "Linux"}},
}

func deviceByAgent(agent string) Device {
	for _, a := range agents {
		for _, w := range a.words {
			if strings.Contains(agent, w) {
				return a.device
			}
		}
	}
	return Unknown
}

// isBot knows robots that say that they are: so do all of the large ones.
func isBot(agent string) bool {
	lower := strings.ToLower(agent)
	for _, w := range []string{"bot/", "bot;", "bot)", "bot ", "spider", "crawler", "slurp", "facebookexternalhit", "curl/", "wget/", "python-requests", "go-http-client"} {
		if strings.Contains(lower, w) {
			return true
		}
	}
	return false
}
