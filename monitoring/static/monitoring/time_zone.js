// Tells the server the browser's time zone, for the admin's next page, unless one was chosen before.
"use strict";
if (!/(^|; )time_zone=/.test(document.cookie)) {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (/^[\w+/-]+$/.test(zone)) {
        document.cookie = `time_zone=${zone}; path=/admin/; max-age=31536000; samesite=lax`;
    }
}
