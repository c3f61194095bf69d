package signalserver_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

// Each client gets the form of a file that it takes, with headers that keep
// the page to itself.
func TestPageForms(t *testing.T) {
	h := start(t, func(c *signalserver.Config) {
		c.Page = fstest.MapFS{
			"index.html":        {Data: []byte("the page")},
			"assets/a-1.js":     {Data: []byte("the script")},
			"assets/a-1.js.br":  {Data: []byte("in brotli")},
			"assets/a-1.js.gz":  {Data: []byte("in gzip")},
			"assets/b-2.wasm":   {Data: []byte("the engine")},
			"assets/lonely.gz":  {Data: []byte("of nothing")},
			"assets/a.css":      {Data: []byte("the style")},
			"assets/a.css.gz":   {Data: []byte("in gzip")},
			"assets/dir/x.json": {Data: []byte("{}")},
		}
	})
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	const immutable = "public, max-age=31536000, immutable"
	for _, c := range []struct {
		path, accept        string
		status              int
		body, encoding, typ string
		cache, varying      string
	}{
		{"/", "br, gzip", 200, "the page", "", "text/html; charset=utf-8", "no-cache", "Accept-Encoding"},
		{"/index.html", "", 200, "the page", "", "text/html; charset=utf-8", "no-cache", "Accept-Encoding"},
		{"/assets/a-1.js", "gzip, deflate, br", 200, "in brotli", "br", "text/javascript; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/a-1.js", "gzip;q=0.5", 200, "in gzip", "gzip", "text/javascript; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/a-1.js", "br;q=0, GZIP", 200, "in gzip", "gzip", "text/javascript; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/a-1.js", "*", 200, "in brotli", "br", "text/javascript; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/a-1.js", "br; q=0, *", 200, "in gzip", "gzip", "text/javascript; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/a-1.js", "br;q=nonsense", 200, "the script", "", "text/javascript; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/a-1.js", "br;Q=0, gzip", 200, "in gzip", "gzip", "text/javascript; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/a-1.js", "gzip;q=1.0, br;q=0.1", 200, "in gzip", "gzip", "text/javascript; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/a-1.js", "gzip;q=0.5;x=y, br;x=y;q=0.5", 200, "in brotli", "br", "text/javascript; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/a-1.js", "identity, br;q=0.5", 200, "the script", "", "text/javascript; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/a-1.js", "identity;q=0.5, br;q=0.5", 200, "in brotli", "br", "text/javascript; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/a-1.js", "gzip;q=0.9|br", 200, "in brotli", "br", "text/javascript; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/a-1.js", "br;q=nan", 200, "the script", "", "text/javascript; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/a-1.js", "", 200, "the script", "", "text/javascript; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/a.css", "br, gzip", 200, "in gzip", "gzip", "text/css; charset=utf-8", immutable, "Accept-Encoding"},
		{"/assets/b-2.wasm", "br, gzip", 200, "the engine", "", "application/wasm", immutable, "Accept-Encoding"},
		{"/assets/a-1.js.br", "br", 404, "There is no such page.\n", "", "text/plain; charset=utf-8", "no-store", ""},
		{"/assets/lonely", "gzip", 404, "There is no such page.\n", "", "text/plain; charset=utf-8", "no-store", ""},
		{"/assets", "", 404, "There is no such page.\n", "", "text/plain; charset=utf-8", "no-store", ""},
		{"/assets/dir/", "", 404, "There is no such page.\n", "", "text/plain; charset=utf-8", "no-store", ""},
	} {
		request, err := http.NewRequest(http.MethodGet, h.web.URL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for header := range strings.SplitSeq(c.accept, "|") { // one or more of them
			request.Header.Add("Accept-Encoding", header)
		}
		response, body := signaltest.Fetch(t, client, request)
		got := response.Header
		if response.StatusCode != c.status || body != c.body || got.Get("Content-Encoding") != c.encoding ||
			got.Get("Content-Type") != c.typ || got.Get("Cache-Control") != c.cache || got.Get("Vary") != c.varying ||
			got.Get("X-Content-Type-Options") != "nosniff" || response.ContentLength != int64(len(c.body)) {
			t.Errorf("%s for %q: %d %q, %v", c.path, c.accept, response.StatusCode, body, got)
		}
		policy := got.Get("Content-Security-Policy")
		if (c.status == 200) != strings.HasPrefix(policy, "default-src 'none'; script-src 'self' 'wasm-unsafe-eval';") || strings.Contains(policy, "'unsafe-inline'") {
			t.Errorf("%s: policy %q", c.path, policy)
		}
	}
}

// A file that a client has is not sent again while it is the same, in the form that the client takes.
func TestPageTags(t *testing.T) {
	files := fstest.MapFS{"index.html": {Data: []byte("the page")}, "index.html.br": {Data: []byte("in brotli")}}
	h := start(t, func(c *signalserver.Config) { c.Page = files })
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	ask := func(method, accept, tag string) (int, string, string) {
		t.Helper()
		request, err := http.NewRequest(method, h.web.URL+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept-Encoding", accept)
		if tag != "" {
			request.Header.Set("If-None-Match", tag)
		}
		response, body := signaltest.Fetch(t, &http.Client{Transport: transport}, request)
		if response.StatusCode == http.StatusNotModified && (response.Header.Get("Cache-Control") != "no-cache" || response.Header.Get("Vary") != "Accept-Encoding") {
			t.Errorf("not modified, and says %v", response.Header)
		}
		return response.StatusCode, body, response.Header.Get("ETag")
	}
	_, _, plain := ask("GET", "", "")
	_, _, brotli := ask("GET", "br", "")
	if plain == "" || brotli == "" || plain == brotli {
		t.Fatalf("tags %q and %q", plain, brotli)
	}
	for _, c := range []struct {
		method, accept, tag string
		status              int
		body                string
	}{
		{"GET", "", plain, 304, ""},
		{"HEAD", "", plain, 304, ""},
		{"GET", "br", brotli, 304, ""},
		{"GET", "br", plain, 200, "in brotli"},
		{"GET", "", `"another"`, 200, "the page"},
		{"GET", "", `"another", W/` + plain, 304, ""},
	} {
		if status, body, _ := ask(c.method, c.accept, c.tag); status != c.status || body != c.body {
			t.Errorf("%s for %q with %s: %d %q", c.method, c.accept, c.tag, status, body)
		}
	}
	files["index.html"] = &fstest.MapFile{Data: []byte("the page, anew")}
	if status, body, _ := ask("GET", "", plain); status != 200 || body != "the page, anew" {
		t.Errorf("a file that has changed: %d %q", status, body)
	}
}
