package signalserver

import (
	"crypto/sha256"
	"encoding/base64"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// contentPolicy allows the page its own files and its own server, and nothing
// else: no other host, no inline script or style, no frame around it. The
// engine is WebAssembly in a worker. data: is for the icon.
const contentPolicy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; " +
	"img-src 'self' data:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// encodings are the compressed forms that a file of the page may have beside
// it, the best first.
var encodings = []struct{ name, suffix string }{{"br", ".br"}, {"gzip", ".gz"}}

// contentTypes are those of the page's files, whatever the machine's own
// table says.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".wasm": "application/wasm",
	".svg":  "image/svg+xml",
	".json": "application/json",
}

// page serves the files of the page; index.html for directories, and no
// listings.
func page(files fs.FS) http.Handler {
	if files == nil {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			plain(w, http.StatusNotFound, "This signaling server serves no page.")
		})
	}
	var tags entityTags
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
		if strings.HasSuffix(r.URL.Path, "/") {
			name = path.Join(name, "index.html")
		}
		file, encoding := openFile(files, name, strings.Join(r.Header.Values("Accept-Encoding"), ","))
		if file == nil {
			plain(w, http.StatusNotFound, "There is no such page.")
			return
		}
		defer func() { _ = file.Close() }()
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Vary", "Accept-Encoding")
		h.Set("Cache-Control", "no-cache")
		if strings.HasPrefix(name, "assets/") { // the build names these after their content
			h.Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		typ, ok := contentTypes[path.Ext(name)]
		if !ok {
			typ = mime.TypeByExtension(path.Ext(name))
		}
		if typ == "" {
			typ = "application/octet-stream"
		}
		h.Set("Content-Type", typ)
		if encoding != "" {
			h.Set("Content-Encoding", encoding)
		}
		tag, size, err := tags.of(name+"\x00"+encoding, file)
		if err != nil {
			plain(w, http.StatusInternalServerError, "The file cannot be read.")
			return
		}
		h.Set("ETag", tag)
		h.Set("Content-Length", strconv.FormatInt(size, 10)) // ServeContent leaves it out where there is an encoding
		http.ServeContent(w, r, name, time.Time{}, file)
	})
}

// seekFile is a file of the page. Those of embed.FS can all seek.
type seekFile interface {
	fs.File
	io.Seeker
}

// openFile opens a file of the page in the best encoding that the client
// takes ("" for as it is), or returns nil.
func openFile(files fs.FS, name, accept string) (file seekFile, encoding string) {
	for _, e := range encodings {
		if strings.HasSuffix(name, e.suffix) {
			return nil, "" // the compressed forms are no files of the page
		}
	}
	if file = openRegular(files, name); file == nil {
		return nil, ""
	}
	best := weight(accept, "identity")
	for _, e := range encodings {
		q := weight(accept, e.name)
		if q == 0 || q < best || q == best && encoding != "" {
			continue
		}
		if f := openRegular(files, name+e.suffix); f != nil {
			_ = file.Close()
			file, encoding, best = f, e.name, q
		}
	}
	return file, encoding
}

func openRegular(files fs.FS, name string) seekFile {
	f, err := files.Open(name)
	if err != nil {
		return nil
	}
	info, err := f.Stat()
	seekable, ok := f.(seekFile)
	if err != nil || !info.Mode().IsRegular() || !ok {
		_ = f.Close()
		return nil
	}
	return seekable
}

// weight returns how much a client wants an encoding, 0 to 1, from its Accept-Encoding header, where it may stand under *.
// A file as it is ("identity") is taken by everybody, and wanted less than anything else unless the header says so.
func weight(header, encoding string) float64 {
	named, star := -1.0, 0.0
	for item := range strings.SplitSeq(header, ",") {
		name, parameters, _ := strings.Cut(item, ";")
		q := 1.0
		for parameter := range strings.SplitSeq(parameters, ";") {
			key, value, _ := strings.Cut(parameter, "=")
			if !strings.EqualFold(strings.TrimSpace(key), "q") {
				continue
			}
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil || !(n >= 0) {
				n = 0
			}
			q = min(n, 1)
		}
		switch name = strings.TrimSpace(name); {
		case strings.EqualFold(name, encoding):
			named = q
		case name == "*":
			star = q
		}
	}
	switch {
	case named >= 0:
		return named
	case encoding == "identity":
		return 0
	}
	return star
}

// entityTags are the ETags of files, by the name that they are served under; those of one that changes are made anew. With
// them a browser that asks whether a file is still the same gets a short answer.
type entityTags struct{ known sync.Map }

type entityTag struct {
	text     string
	size     int64
	modified time.Time
}

func (t *entityTags) of(name string, file seekFile) (tag string, size int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return "", 0, err
	}
	if known, ok := t.known.Load(name); ok {
		if k := known.(entityTag); k.size == info.Size() && k.modified.Equal(info.ModTime()) {
			return k.text, k.size, nil
		}
	}
	digest := sha256.New()
	size, err = io.Copy(digest, file)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return "", 0, err
	}
	tag = `"` + base64.RawURLEncoding.EncodeToString(digest.Sum(nil)[:12]) + `"`
	t.known.Store(name, entityTag{tag, info.Size(), info.ModTime()})
	return tag, size, nil
}
