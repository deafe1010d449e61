// room: text
