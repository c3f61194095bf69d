package syncproto
