package signaltest

import (
	"io"
	"net/http"
	"testing"
)

// Fetch makes a request, and reads the answer to its end; that there is none fails the test.
func Fetch(t testing.TB, c *http.Client, request *http.Request) (*http.Response, string) {
	t.Helper()
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

// Get is Fetch for a URL alone; of the answer it returns the status and the body.
func Get(t testing.TB, c *http.Client, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, body := Fetch(t, c, request)
	return response.StatusCode, body
}
