"""The page to try at `/`, made with Gradio, on the same server and by the same batches as the API.

mounting  what of Gradio is let through, and when it is imported
page      what the page has, and what happens on it
uploads   files on their way in, and out again
views     answers as HTML, by the templates beside it, and as CSV
"""
